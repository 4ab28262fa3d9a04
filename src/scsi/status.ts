/**
 * The outcome of an SG_IO request as the status and sense that the guest gets.
 *
 * The kernel tells it in four places: the result of the ioctl, the host's status (whether the command got through), the driver's status,
 * and the device's own. They are looked at in this order. Nothing that is not known becomes GOOD: a cluster that believes a
 * reservation to be made that is not destroys data.
 */
import {
  SENSE_COMMAND_ABORTED,
  SENSE_COMMAND_TIMEOUT,
  SENSE_INVALID_FIELD,
  SENSE_IO_ERROR,
  SENSE_LUN_COMMUNICATION,
  SENSE_LUN_NO_RESPONSE,
  SENSE_MEDIUM_ERROR,
  SENSE_NEXUS_LOSS,
  SENSE_NO_MEDIUM,
  SENSE_SPACE_ALLOCATION,
  SENSE_TARGET_FAILURE,
  SENSE_UNIT_ATTENTION_RESET,
  type Sense,
} from './sense.ts';

/** Status codes: SAM-5, 5.3.1. */
export const STATUS_GOOD = 0x00;
export const STATUS_CHECK_CONDITION = 0x02;
export const STATUS_BUSY = 0x08;
export const STATUS_RESERVATION_CONFLICT = 0x18;
export const STATUS_TASK_SET_FULL = 0x28;

const STATUS_NAMES: Readonly<Record<number, string>> = {
  0: 'GOOD',
  2: 'CHECK CONDITION',
  4: 'CONDITION MET',
  8: 'BUSY',
  24: 'RESERVATION CONFLICT',
  40: 'TASK SET FULL',
  48: 'ACA ACTIVE',
  64: 'TASK ABORTED',
};

export function nameStatus(status: number): string {
  return STATUS_NAMES[status] ?? `status 0x${status.toString(16).padStart(2, '0')}`;
}

/** What SG_IO told: linux/scsi/sg.h. */
export interface SgOutcome {
  /** errno of the ioctl, 0 when it was carried out. */
  readonly errno: number;
  /** The device's status. */
  readonly status: number;
  /** DID_* of the kernel. */
  readonly hostStatus: number;
  readonly driverStatus: number;
}

/** What the guest is told. */
export interface Verdict {
  readonly status: number;
  /** Sense to make; undefined: what the kernel wrote, which is zeros when the device had nothing to say. */
  readonly sense: Sense | undefined;
}

const verdict = (status: number): Verdict => ({ status, sense: undefined });
const check = (sense: Sense): Verdict => ({ status: STATUS_CHECK_CONDITION, sense });

/** Errors that the block layer makes of what a target said: blk_errors of the kernel. */
const BY_ERRNO: Readonly<Record<number, Verdict>> = {
  33: verdict(STATUS_TASK_SET_FULL), // EDOM
  52: verdict(STATUS_RESERVATION_CONFLICT), // EBADE
  61: check(SENSE_MEDIUM_ERROR), // ENODATA
  121: check(SENSE_TARGET_FAILURE), // EREMOTEIO
  12: check(SENSE_TARGET_FAILURE), // ENOMEM
  123: check(SENSE_NO_MEDIUM), // ENOMEDIUM
  22: check(SENSE_INVALID_FIELD), // EINVAL
  28: check(SENSE_SPACE_ALLOCATION), // ENOSPC
};

/** DID_*: scsi/scsi_status.h of the kernel. */
const BY_HOST_STATUS: Readonly<Record<number, Verdict>> = {
  1: check(SENSE_LUN_NO_RESPONSE), // DID_NO_CONNECT
  2: verdict(STATUS_BUSY), // DID_BUS_BUSY
  3: check(SENSE_COMMAND_TIMEOUT), // DID_TIME_OUT
  4: check(SENSE_LUN_COMMUNICATION), // DID_BAD_TARGET
  5: check(SENSE_COMMAND_ABORTED), // DID_ABORT
  8: check(SENSE_UNIT_ATTENTION_RESET), // DID_RESET
  14: check(SENSE_NEXUS_LOSS), // DID_TRANSPORT_DISRUPTED
  16: check(SENSE_TARGET_FAILURE), // DID_TARGET_FAILURE
  17: verdict(STATUS_RESERVATION_CONFLICT), // DID_NEXUS_FAILURE
  18: check(SENSE_SPACE_ALLOCATION), // DID_ALLOC_FAILURE
  19: check(SENSE_MEDIUM_ERROR), // DID_MEDIUM_ERROR
};

const IO_ERROR = check(SENSE_IO_ERROR);
/** DRIVER_BUSY and DRIVER_SOFT: nothing else in these bits says that the command was carried out. */
const DRIVER_BUSY_BITS = 6;

export function judgeOutcome({ errno, status, hostStatus, driverStatus }: SgOutcome): Verdict {
  if (errno !== 0) return BY_ERRNO[errno] ?? IO_ERROR;
  if (hostStatus !== 0) return BY_HOST_STATUS[hostStatus] ?? IO_ERROR;
  if ((driverStatus & DRIVER_BUSY_BITS) !== 0) return verdict(STATUS_BUSY);
  return verdict(status);
}
