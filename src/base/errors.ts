/**
 * Every error a user can meet, in one table: a stable code that scripts may match, the exit status that goes with it, and the
 * form of its message. Messages name the option or object, the value found and what was expected, in one line.
 */

interface ErrorRow {
  readonly exitStatus: number;
  /** Text with `{name}` places that the thrower fills. */
  readonly form: string;
}

/** Exit status 1 is what callers of the C programs test for; 126/127 follow the shell for commands we start. */
export const ERROR_TABLE = {
  PASSEL_E_OPTION_UNKNOWN: { exitStatus: 1, form: "unknown option '{option}'" },
  PASSEL_E_OPTION_AMBIGUOUS: { exitStatus: 1, form: "option '{option}' is ambiguous: it could be {candidates}" },
  PASSEL_E_OPTION_NO_ARGUMENT: { exitStatus: 1, form: "option '{option}' needs a value: {expected}" },
  PASSEL_E_OPTION_UNWANTED_ARGUMENT: {
    exitStatus: 1,
    form: "option '{option}' takes no value, but '{value}' was given",
  },
  PASSEL_E_OPTION_VALUE: { exitStatus: 1, form: "{option}: '{value}' is not valid: expected {expected}" },
  PASSEL_E_OPTION_MISSING: { exitStatus: 1, form: '{option} is missing: expected {expected}' },
  PASSEL_E_OPTION_CONFLICT: { exitStatus: 1, form: '{option} and {other} exclude each other' },
  PASSEL_E_OPTION_REQUIRES: { exitStatus: 1, form: '{option} needs {other}' },
  PASSEL_E_OPTION_UNSUPPORTED: { exitStatus: 1, form: '{option} is not supported by this version: {reason}' },
  PASSEL_E_OPERAND: { exitStatus: 1, form: "unexpected argument '{value}': expected {expected}" },
  PASSEL_E_COMMAND_UNKNOWN: { exitStatus: 1, form: "unknown command '{value}': expected {expected}" },
  PASSEL_E_PORT_SPEC: { exitStatus: 1, form: "{option}: '{value}': {problem}: expected {expected}" },
  PASSEL_E_PORT_BIND: { exitStatus: 1, form: '{option}: cannot listen on {endpoint}: {reason}' },
  PASSEL_E_INTERFACE: { exitStatus: 1, form: "{option}: no network interface is called '{value}'" },
  PASSEL_E_NO_ADDRESS_FAMILY: { exitStatus: 1, form: '{option}: the host has no usable {family}: {reason}' },
  PASSEL_E_SOCKET_IN_USE: { exitStatus: 1, form: "{option}: '{value}' is in use by another process" },
  PASSEL_E_SOCKET_PATH: { exitStatus: 1, form: "{option}: cannot listen on '{value}': {reason}" },
  PASSEL_E_SOCKET_NONE_FREE: { exitStatus: 1, form: '--socket: none of {value} is free: name a path of your own' },
  PASSEL_E_NETDEV: { exitStatus: 1, form: "{option}: '{value}' cannot be used: {reason}" },
  PASSEL_E_NETDEV_SEVERAL: {
    exitStatus: 1,
    form: '{option} is given {count} times: a network has at most {most} guests',
  },
  PASSEL_E_NETDEV_ADDRESS: { exitStatus: 1, form: "{option}: cannot {step} '{value}': {reason}" },
  PASSEL_E_FD: { exitStatus: 1, form: '--fd: descriptor {value} cannot be used: {reason}' },
  PASSEL_E_FILE: { exitStatus: 1, form: "{option}: cannot open '{value}': {reason}" },
  PASSEL_E_NAMESPACE: { exitStatus: 1, form: 'cannot {step}: {reason}' },
  PASSEL_E_NAMESPACE_AGENT: { exitStatus: 1, form: 'the process in the namespace was ended by {value}' },
  PASSEL_E_SERVICES: { exitStatus: 1, form: 'cannot start the services of the guest network: {reason}' },
  PASSEL_E_GUEST_FORWARD: { exitStatus: 1, form: "cannot forward connections of the guest to '{value}': {reason}" },
  PASSEL_E_SMB: { exitStatus: 1, form: "{option}: cannot share '{value}': {reason}" },
  PASSEL_E_USER: { exitStatus: 1, form: "{option}: cannot run as '{value}': {reason}" },
  PASSEL_E_SANDBOX: { exitStatus: 1, form: 'cannot give up privileges: {reason}' },
  PASSEL_E_ADDON: { exitStatus: 1, form: "cannot load the native addon '{value}': {reason}" },
  PASSEL_E_DAEMON: { exitStatus: 1, form: 'the background process ended before it was ready: {reason}' },
  PASSEL_E_RUN_NO_COMMAND: {
    exitStatus: 1,
    form: 'no command to run: expected passel run [OPTION]... -- COMMAND [ARG]...',
  },
  PASSEL_E_RUN_NOT_FOUND: { exitStatus: 127, form: "cannot run '{value}': {reason}" },
  PASSEL_E_RUN_NOT_EXECUTABLE: { exitStatus: 126, form: "cannot run '{value}': {reason}" },
  PASSEL_E_RUN_REFUSED: { exitStatus: 1, form: "{option} '{value}': QEMU refuses it: {reason}" },
  PASSEL_E_RUN_UNFIT: { exitStatus: 1, form: "{option}: '{value}' does not fit '{use}': {reason}" },
  PASSEL_E_QEMU_JSON: { exitStatus: 1, form: "{option}: '{value}' is not JSON that QEMU could read: {reason}" },
  PASSEL_E_QEMU_NOT_FOUND: { exitStatus: 1, form: 'no QEMU found: {value}' },
  PASSEL_E_QEMU_EXECUTE: { exitStatus: 1, form: "cannot become '{value}': {reason}" },
  PASSEL_E_QRAP_NO_PASST: { exitStatus: 1, form: 'no passt socket answered: {value}' },
  PASSEL_E_QRAP_FD: { exitStatus: 1, form: 'descriptor {value} cannot be had: {reason}' },
  PASSEL_E_ACL: { exitStatus: 1, form: "failed to parse acl file '{place}': {reason}" },
  PASSEL_E_ACL_DENIED: { exitStatus: 1, form: "access denied by acl file: bridge '{bridge}': {reason}" },
  PASSEL_E_POLICY: { exitStatus: 1, form: "--policy: '{value}' is not a policy: {reason}" },
  PASSEL_E_BROKER: { exitStatus: 1, form: "the fd broker at '{value}': {reason}" },
  PASSEL_E_QMP_CONNECT: { exitStatus: 2, form: "nobody answers at '{value}': {reason}" },
  PASSEL_E_QMP_MONITOR: { exitStatus: 2, form: "the monitor at '{value}' cannot be used: {reason}" },
  PASSEL_E_QMP_REFUSED: { exitStatus: 1, form: '{reason}' },
  PASSEL_E_QMP_GUEST: { exitStatus: 1, form: '{reason}' },
  PASSEL_E_QMP_FD: { exitStatus: 1, form: "{option}: '{value}' cannot be given to QEMU: {reason}" },
  PASSEL_E_BRIDGE: { exitStatus: 1, form: '{reason}' },
  PASSEL_E_PR_ACTIVATION: { exitStatus: 1, form: 'socket activation failed: {reason}' },
  PASSEL_E_PR_PID_FILE: { exitStatus: 1, form: "{option}: cannot use the PID file '{value}': {reason}" },
  PASSEL_E_PR_PRIVILEGES: { exitStatus: 1, form: 'cannot drop privileges: {reason}' },
  PASSEL_E_LINK: { exitStatus: 1, form: "cannot make '{value}': {reason}" },
  PASSEL_E_FORWARD_UNKNOWN: { exitStatus: 1, form: 'there is no forward {value}' },
  PASSEL_E_CAPTURE_UNKNOWN: { exitStatus: 1, form: 'there is no recording {value}' },
  PASSEL_E_CAPTURE_FILE: { exitStatus: 1, form: "cannot record in '{value}': {reason}" },
  PASSEL_E_CONTROL_REQUEST: { exitStatus: 1, form: 'the request is not valid: {reason}' },
  PASSEL_E_CONTROL_SIZE: { exitStatus: 1, form: 'the request has more than {value} bytes' },
  PASSEL_E_CONTROL_PATH: { exitStatus: 1, form: "there is nothing at '{value}'" },
  PASSEL_E_CONTROL_METHOD: { exitStatus: 1, form: "{value} is not possible on '{path}': expected {expected}" },
  PASSEL_E_CTL_NO_SOCKET: { exitStatus: 1, form: 'no control socket is named: expected {expected}' },
  PASSEL_E_CTL_CONNECT: { exitStatus: 2, form: "nobody answers at '{value}': {reason}" },
  PASSEL_E_CTL_ANSWER: { exitStatus: 2, form: "what answers at '{value}' is not a control socket: {reason}" },
  PASSEL_E_CTL_REFUSED: { exitStatus: 1, form: '{reason}' },
  PASSEL_E_DEMO: { exitStatus: 1, form: 'demo: {step} failed: {reason}' },
  PASSEL_E_INTERNAL: { exitStatus: 1, form: 'internal error: {reason}' },
} as const satisfies Record<string, ErrorRow>;

/** Stable codes; they appear in JSON log lines and on `PasselError.code`. */
export type ErrorCode = keyof typeof ERROR_TABLE;

type Places<Form extends string> = Form extends `${string}{${infer Name}}${infer Rest}` ? Name | Places<Rest> : never;

/** The values a message of this code needs. */
export type ErrorValues<Code extends ErrorCode> = {
  readonly [K in Places<(typeof ERROR_TABLE)[Code]['form']>]: string | number;
};

interface ErrorExtras {
  /** A second line for people: what to try. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** An error with a code and exit status from {@link ERROR_TABLE}. */
export class PasselError<Code extends ErrorCode = ErrorCode> extends Error {
  override readonly name = 'PasselError';
  readonly code: Code;
  /** What the process ends with when nobody handles the error. */
  readonly exitStatus: number;
  readonly hint: string | undefined;
  /** What the message was made of. */
  readonly values: ErrorValues<Code>;

  constructor(code: Code, values: ErrorValues<Code>, extras: ErrorExtras = {}) {
    super(fillForm(ERROR_TABLE[code].form, values), extras.cause === undefined ? {} : { cause: extras.cause });
    this.code = code;
    this.exitStatus = ERROR_TABLE[code].exitStatus;
    this.hint = extras.hint;
    this.values = values;
  }
}

function fillForm(form: string, values: Readonly<Record<string, string | number>>): string {
  return form.replace(/\{(\w+)\}/g, (_place, name: string) => printable(String(values[name] ?? '')));
}

/** Text from command lines, files and guests: its control characters must not reach a terminal or split a log line. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** The text of a system error without the call and path that Node puts around it: `EACCES: permission denied`. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code } = error as NodeJS.ErrnoException;
  if (code === undefined) return error.message;
  const match = /^(?:\w+ )?([A-Z][A-Z0-9]+: [^,]+)/.exec(error.message);
  return match?.[1] ?? `${code}: ${error.message}`;
}
