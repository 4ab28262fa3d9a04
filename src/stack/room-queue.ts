/**
 * Flows that wait for room on the link, first come first served. An event of the host is reported once (edge-triggered), so a flow
 * that had to stop because the link was full must be remembered here: nothing else would ever wake it.
 */
import type { FlowTable } from './flow/table.ts';

export class RoomQueue {
  private head = 0;
  private tail = 0;
  private readonly flows: FlowTable;

  constructor(flows: FlowTable) {
    this.flows = flows;
  }

  get isEmpty(): boolean {
    return this.head === 0;
  }

  /** Adds a flow at the end; one that waits already keeps its place. */
  add(index: number): void {
    const { flows } = this;
    if (flows.roomQueued[index] !== 0) return;
    flows.roomQueued[index] = 1;
    flows.roomNext[index] = 0;
    if (this.tail === 0) this.head = index + 1;
    else flows.roomNext[this.tail - 1] = index + 1;
    this.tail = index + 1;
  }

  /** Takes the first flow off. @returns its index, or -1 */
  take(): number {
    if (this.head === 0) return -1;
    const { flows } = this;
    const index = this.head - 1;
    this.head = flows.roomNext[index]!;
    if (this.head === 0) this.tail = 0;
    flows.roomNext[index] = 0;
    flows.roomQueued[index] = 0;
    return index;
  }
}
