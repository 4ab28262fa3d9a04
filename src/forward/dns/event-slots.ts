/** Handlers of the events of sockets that come and go, by the number that an event carries. */

/** @param events - EVENT_* bits */
export type SlotHandler = (events: number) => void;

export class EventSlots {
  private readonly handlers: (SlotHandler | undefined)[] = [];
  private readonly free: number[] = [];

  /** @returns the number that events for this handler are to carry */
  add(handler: SlotHandler): number {
    const slot = this.free.pop() ?? this.handlers.length;
    this.handlers[slot] = handler;
    return slot;
  }

  /** Its number may be given to another handler. */
  remove(slot: number): void {
    if (this.handlers[slot] === undefined) return;
    this.handlers[slot] = undefined;
    this.free.push(slot);
  }

  /** An event may be left from a socket that was closed in the same round: handlers look for themselves whether there is something to do. */
  dispatch(slot: number, events: number): void {
    this.handlers[slot]?.(events);
  }
}
