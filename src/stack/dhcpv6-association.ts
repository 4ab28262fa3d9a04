/**
 * The associations in a DHCPv6 message (IA_NA, IA_TA, IA_PD; RFC 8415 §21.4, §21.5, §21.21) seen by a server that has one
 * address to give: walking over them, and refusing one.
 */
import {
  beginDhcpv6IaNa,
  DHCPV6_IA_NA_BYTES,
  DHCPV6_OPTION_IA_NA,
  DHCPV6_OPTION_IA_PD,
  DHCPV6_OPTION_IA_TA,
  endDhcpv6Option,
  getDhcpv6Iaid,
  writeDhcpv6Status,
  writeDhcpv6Uint32,
} from '../wire/dhcpv6.ts';

/** An IA_TA has no times: its identity is all (RFC 8415 §21.5). */
const IA_TA_BYTES = 4;
const OPTION_HEADER_BYTES = 4;

/**
 * Looks for the next association in a checked message.
 * @param at start of an option, or end of the data of the last association
 * @returns offset of its data, 0 if there is none
 */
export function nextAssociation(view: DataView, at: number, end: number): number {
  for (let next = at; next + OPTION_HEADER_BYTES <= end; ) {
    const code = view.getUint16(next);
    const data = next + OPTION_HEADER_BYTES;
    if (code === DHCPV6_OPTION_IA_NA || code === DHCPV6_OPTION_IA_TA || code === DHCPV6_OPTION_IA_PD) return data;
    next = data + view.getUint16(next + 2);
  }
  return 0;
}

/** DHCPV6_OPTION_IA_NA, …_TA or …_PD. */
export function getAssociationCode(view: DataView, data: number): number {
  return view.getUint16(data - OPTION_HEADER_BYTES);
}

/** Bytes before the options inside the association at `data`. */
export function getAssociationFixedBytes(view: DataView, data: number): number {
  return getAssociationCode(view, data) === DHCPV6_OPTION_IA_TA ? IA_TA_BYTES : DHCPV6_IA_NA_BYTES;
}

/**
 * Appends an association like the one at `data` that holds nothing but a status.
 * @returns the offset behind it, or a negative status (see wire/room.ts)
 */
export function writeRefusedAssociation(
  view: DataView,
  at: number,
  limit: number,
  data: number,
  status: number,
): number {
  if (at < 0) return at;
  const code = getAssociationCode(view, data);
  const iaid = getDhcpv6Iaid(view, data);
  let next: number;
  if (code === DHCPV6_OPTION_IA_TA) {
    next = writeDhcpv6Uint32(view, at, limit, code, iaid);
  } else {
    next = beginDhcpv6IaNa(view, at, limit, iaid, 0, 0);
    // A prefix association has the same layout under another code.
    if (next > 0) view.setUint16(at, code);
  }
  return endDhcpv6Option(view, at, writeDhcpv6Status(view, next, limit, status, ''));
}
