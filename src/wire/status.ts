/**
 * The results that the check functions of this folder share.
 *
 * A check returns the length in bytes of the header it has accepted (always > 0) or one of these. They are plain integers,
 * not errors, since a malformed frame is an everyday event that must cost nothing and must not be able to throw.
 */

/** Fewer bytes are left than the header needs. */
export const WIRE_TRUNCATED = -1;
/** A length field contradicts itself or the bytes that are there; from a builder: the result does not fit. */
export const WIRE_BAD_LENGTH = -2;
/** A version or format field has a value that the protocol does not allow here. */
export const WIRE_BAD_VERSION = -3;
/** The checksum does not match. */
export const WIRE_BAD_CHECKSUM = -4;
/** An option is cut off, has a length of zero where that would never end, or has an impossible value. */
export const WIRE_BAD_OPTION = -5;
/** Well-formed, but something that this stack does not speak. */
export const WIRE_UNSUPPORTED = -6;
