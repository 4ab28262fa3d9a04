/**
 * The PID of this process, as others know it: in a PID namespace of its own it is 1 to itself. What is written for others to read (PID
 * file, messages, answers) has this one; what is said to the kernel has `process.pid`.
 */
let told: number | undefined;

/** Takes note of what the launcher, who is outside, says. */
export function noteServingPid(pid: number): void {
  told = pid;
}

export function servingPid(): number {
  return told ?? process.pid;
}
