/**
 * In-order payload of the guest on its way to host sockets.
 *
 * Segments are not sent one by one: those that one read of the link brought for a flow are noted as (offset, length) pairs and leave
 * with one sendmsg, from the memory they arrived in. A few flows gather side by side, because a read interleaves them. The
 * notes refer to memory that the next read overwrites, so `flushGathered` runs before it.
 *
 * What the socket does not take goes to the flow's spill (spill.ts), behind what is there already. Bytes count as received, and are
 * acknowledged, from the moment they are noted: nothing behind this point can lose them.
 */
import { EAGAIN } from '../../base/errno.ts';
import { FLAG_ACK_DUE, FLAG_HAS_SPILL, FLAG_HOST_FAILED, STATE_ESTABLISHED } from './columns.ts';
import { addToTurn, GATHER_SEGMENTS, GATHER_SLOTS, LIST_ENTRY_BYTES, type TcpCore } from './core.ts';
import { watchRoom } from './host-socket.ts';
import { Spill } from './spill.ts';
import { isWindowUpdateDue } from './window.ts';

const SLOT_BYTES = GATHER_SEGMENTS * LIST_ENTRY_BYTES;

/** Notes `length` payload bytes at `offset`, which continue the flow's stream. */
export function gatherPayload(core: TcpCore, index: number, offset: number, length: number): void {
  const { columns: c, slotCount, view } = core;
  let slot = c.gatherSlot[index]! - 1;
  if (slot < 0) {
    slot = takeSlot(core);
    core.slotFlow[slot] = index;
    c.gatherSlot[index] = slot + 1;
  }
  const count = slotCount[slot]!;
  const entry = core.listOffset + slot * SLOT_BYTES + count * LIST_ENTRY_BYTES;
  view.setUint32(entry, offset, true);
  view.setUint32(entry + 4, length, true);
  slotCount[slot] = count + 1;
  core.slotBytes[slot] = core.slotBytes[slot]! + length;
  if (count + 1 === GATHER_SEGMENTS) flushSlot(core, slot);
}

function takeSlot(core: TcpCore): number {
  if (core.slotTop === GATHER_SLOTS) flushGathered(core);
  return core.slotTop++;
}

/** Sends everything gathered, of all flows. */
export function flushGathered(core: TcpCore): void {
  for (let slot = 0; slot < core.slotTop; slot++) {
    flushSlot(core, slot);
    const index = core.slotFlow[slot]!;
    if (core.columns.gatherSlot[index] === slot + 1) core.columns.gatherSlot[index] = 0;
  }
  core.slotTop = 0;
}

/** Sends what was gathered for one flow. */
export function flushFlow(core: TcpCore, index: number): void {
  const slot = core.columns.gatherSlot[index]! - 1;
  if (slot >= 0) flushSlot(core, slot);
}

/** Forgets what was gathered for a flow that ends. */
export function forgetGathered(core: TcpCore, index: number): void {
  const slot = core.columns.gatherSlot[index]! - 1;
  if (slot < 0) return;
  core.slotCount[slot] = 0;
  core.slotBytes[slot] = 0;
  core.columns.gatherSlot[index] = 0;
}

function flushSlot(core: TcpCore, slot: number): void {
  const count = core.slotCount[slot]!;
  if (count === 0) return;
  const bytes = core.slotBytes[slot]!;
  core.slotCount[slot] = 0;
  core.slotBytes[slot] = 0;
  const index = core.slotFlow[slot]!;
  const { columns: c } = core;
  if ((c.flags[index]! & FLAG_HOST_FAILED) !== 0) return;
  countToHost(core, index, bytes);
  const list = core.listOffset + slot * SLOT_BYTES;
  let sent = 0;
  if ((c.flags[index]! & FLAG_HAS_SPILL) === 0) {
    const fd = core.flows.fd[index]!;
    if (count === 1) {
      sent = core.sockets.send(fd, core.view.getUint32(list, true), bytes, 0);
    } else {
      sent = core.sockets.sendSegments(fd, list, count, 0);
    }
    if (sent === bytes) return;
    if (sent < 0) {
      if (sent !== EAGAIN) {
        failHost(core, index);
        return;
      }
      sent = 0;
    }
  }
  spillList(core, index, list, count, sent);
}

function countToHost(core: TcpCore, index: number, bytes: number): void {
  const { bytesToHost } = core.flows;
  bytesToHost[index] = bytesToHost[index]! + bytes;
}

/** Moves what a list holds behind its first `skip` bytes to the spill. */
function spillList(core: TcpCore, index: number, list: number, count: number, skip: number): void {
  const { view } = core;
  const spill = openSpill(core, index);
  const { bytes } = core.ctx.arena;
  let left = skip;
  for (let i = 0; i < count; i++) {
    const offset = view.getUint32(list + i * LIST_ENTRY_BYTES, true);
    const length = view.getUint32(list + i * LIST_ENTRY_BYTES + 4, true);
    if (left >= length) {
      left -= length;
      continue;
    }
    spill.append(bytes, offset + left, length - left);
    left = 0;
  }
  core.columns.spilled[index] = spill.lengthBytes;
}

function openSpill(core: TcpCore, index: number): Spill {
  let spill = core.spills.get(index);
  if (spill === undefined) {
    spill = new Spill();
    core.spills.set(index, spill);
    core.columns.flags[index] = core.columns.flags[index]! | FLAG_HAS_SPILL;
    watchRoom(core, index);
  }
  return spill;
}

/** Passes bytes on that do not lie in the link's memory (from beyond a gap), behind everything gathered so far. */
export function passBytes(core: TcpCore, index: number, data: Uint8Array): void {
  flushFlow(core, index);
  const { columns: c } = core;
  const flags = c.flags[index]!;
  if ((flags & FLAG_HOST_FAILED) !== 0) return;
  countToHost(core, index, data.length);
  let sent = 0;
  if ((flags & FLAG_HAS_SPILL) === 0) {
    sent = core.sockets.sendBuffer(core.flows.fd[index]!, data, 0, data.length, 0);
    if (sent === data.length) return;
    if (sent < 0) {
      if (sent !== EAGAIN) {
        failHost(core, index);
        return;
      }
      sent = 0;
    }
  }
  const spill = openSpill(core, index);
  spill.append(data, sent, data.length - sent);
  c.spilled[index] = spill.lengthBytes;
}

/** The host socket reports space: sends from the spill. */
export function drainSpill(core: TcpCore, index: number): void {
  const { columns: c } = core;
  const spill = core.spills.get(index);
  if (spill === undefined) return;
  const sent = spill.drain(core.sockets, core.flows.fd[index]!);
  if (sent < 0 && sent !== EAGAIN) {
    failHost(core, index);
    return;
  }
  c.spilled[index] = spill.lengthBytes;
  if (spill.lengthBytes === 0) closeSpill(core, index);
  if (c.state[index] === STATE_ESTABLISHED && isWindowUpdateDue(c, index)) {
    c.flags[index] = c.flags[index]! | FLAG_ACK_DUE;
  }
  addToTurn(core, index);
}

/** Gives the spill's memory back. */
export function closeSpill(core: TcpCore, index: number): void {
  const spill = core.spills.get(index);
  if (spill === undefined) return;
  spill.clear();
  core.spills.delete(index);
  core.columns.spilled[index] = 0;
  core.columns.flags[index] = core.columns.flags[index]! & ~FLAG_HAS_SPILL;
}

/** The host socket refuses: the flow ends with a RST when the turn does. */
export function failHost(core: TcpCore, index: number): void {
  core.columns.flags[index] = core.columns.flags[index]! | FLAG_HOST_FAILED;
  addToTurn(core, index);
}
