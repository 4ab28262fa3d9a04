/**
 * An assembler for classic BPF as seccomp(2) runs it: instructions of 8 bytes, jumps forward only and by at most 255, an accumulator and an
 * index register, a record of the system call to load from.
 */

/** Offsets in struct seccomp_data of linux/seccomp.h. */
export const DATA_NUMBER = 0;
export const DATA_ARCH = 4;
const DATA_ARGUMENTS = 16;

/** Lower half of an argument, on little-endian machines. */
export function lowHalf(argument: number): number {
  return DATA_ARGUMENTS + 8 * argument;
}

/** Upper half of an argument. */
export function highHalf(argument: number): number {
  return lowHalf(argument) + 4;
}

/** Codes of linux/bpf_common.h. */
const LOAD = 0x20;
const AND = 0x54;
const SUBTRACT = 0x14;
const ADD_INDEX = 0x0c;
const TO_INDEX = 0x07;
const RETURN = 0x06;
const JUMP = { equal: 0x15, above: 0x25, atLeast: 0x35, anyBit: 0x45 } as const;

const JUMP_MAX = 255;
const INSTRUCTION_BYTES = 8;

/** A place in a program; made by `newLabel`, given its position by `place`. */
export type Label = { at: number };

interface Instruction {
  readonly code: number;
  readonly operand: number;
  readonly whenTrue?: Label;
  readonly whenFalse?: Label;
}

/** A program being written. */
export class BpfProgram {
  private readonly instructions: Instruction[] = [];

  newLabel(): Label {
    return { at: -1 };
  }

  /** The label means the next instruction. */
  place(label: Label): void {
    label.at = this.instructions.length;
  }

  load(offset: number): void {
    this.instructions.push({ code: LOAD, operand: offset });
  }

  and(mask: number): void {
    this.instructions.push({ code: AND, operand: mask });
  }

  subtract(value: number): void {
    this.instructions.push({ code: SUBTRACT, operand: value });
  }

  /** index = accumulator */
  toIndex(): void {
    this.instructions.push({ code: TO_INDEX, operand: 0 });
  }

  /** accumulator += index */
  addIndex(): void {
    this.instructions.push({ code: ADD_INDEX, operand: 0 });
  }

  give(result: number): void {
    this.instructions.push({ code: RETURN, operand: result });
  }

  /** Compares the accumulator, as an unsigned number; without a label it goes on with the next instruction. */
  jump(test: keyof typeof JUMP, value: number, whenTrue?: Label, whenFalse?: Label): void {
    this.instructions.push({
      code: JUMP[test],
      operand: value,
      ...(whenTrue === undefined ? {} : { whenTrue }),
      ...(whenFalse === undefined ? {} : { whenFalse }),
    });
  }

  /**
   * The finished program: struct sock_filter in little-endian order.
   * @throws Error when a label was not placed or is out of a jump's reach
   */
  assemble(): Uint8Array {
    const bytes = new Uint8Array(this.instructions.length * INSTRUCTION_BYTES);
    const view = new DataView(bytes.buffer);
    this.instructions.forEach(({ code, operand, whenTrue, whenFalse }, index) => {
      const at = index * INSTRUCTION_BYTES;
      view.setUint16(at, code, true);
      view.setUint8(at + 2, jumpBy(index, whenTrue));
      view.setUint8(at + 3, jumpBy(index, whenFalse));
      view.setUint32(at + 4, operand >>> 0, true);
    });
    return bytes;
  }
}

function jumpBy(from: number, label: Label | undefined): number {
  if (label === undefined) return 0;
  const by = label.at - from - 1;
  if (by < 0 || by > JUMP_MAX) throw new Error(`BPF: a jump from ${from} to ${label.at} is not possible`);
  return by;
}
