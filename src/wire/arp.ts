/**
 * ARP for IPv4 over Ethernet (RFC 826): 28 bytes in which somebody asks for, or tells, the MAC address of an IPv4 address.
 * Probes (sender address 0) and announcements (sender = target) are ordinary requests here (RFC 5227).
 *
 * Not done: other hardware and protocol types, reverse ARP.
 */
import { WIRE_TRUNCATED, WIRE_UNSUPPORTED } from './status.ts';

export const ARP_BYTES = 28;

export const ARP_REQUEST = 1;
export const ARP_REPLY = 2;

/** Where the MAC addresses of sender and target stand. */
export const ARP_SENDER_MAC_OFFSET = 8;
export const ARP_TARGET_MAC_OFFSET = 18;

/** Hardware type Ethernet, protocol type IPv4. */
const TYPES = 0x0001_0800;
/** A MAC has six bytes, an IPv4 address four. */
const LENGTHS = 0x0604;

/** @returns 28, WIRE_TRUNCATED, or WIRE_UNSUPPORTED for anything but IPv4 over Ethernet */
export function checkArp(view: DataView, offset: number, end: number): number {
  if (end - offset < ARP_BYTES) return WIRE_TRUNCATED;
  if (view.getUint32(offset) !== TYPES || view.getUint16(offset + 4) !== LENGTHS) return WIRE_UNSUPPORTED;
  return ARP_BYTES;
}

/** ARP_REQUEST, ARP_REPLY, or something to be ignored. */
export function getArpOperation(view: DataView, offset: number): number {
  return view.getUint16(offset + 6);
}

/** IPv4 address of the sender, a uint32; 0 in a probe. */
export function getArpSenderAddress(view: DataView, offset: number): number {
  return view.getUint32(offset + 14);
}

/** IPv4 address that is asked for, or of whom the reply is for; a uint32. */
export function getArpTargetAddress(view: DataView, offset: number): number {
  return view.getUint32(offset + 24);
}

/** Writes the 28 bytes. In a request the target's MAC is 0. */
export function writeArp(
  view: DataView,
  offset: number,
  operation: number,
  senderHi: number,
  senderLo: number,
  senderAddress: number,
  targetHi: number,
  targetLo: number,
  targetAddress: number,
): void {
  view.setUint32(offset, TYPES);
  view.setUint16(offset + 4, LENGTHS);
  view.setUint16(offset + 6, operation);
  view.setUint16(offset + 8, senderHi);
  view.setUint32(offset + 10, senderLo);
  view.setUint32(offset + 14, senderAddress);
  view.setUint16(offset + 18, targetHi);
  view.setUint32(offset + 20, targetLo);
  view.setUint32(offset + 24, targetAddress);
}
