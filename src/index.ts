/**
 * The library: the parts of the helpers, for programs that embed them.
 *
 * `loadNative()` gives the addon that the others ask for.
 */
export { PasselError } from './base/errors.ts';
export { type Logger, silentLogger } from './base/logger.ts';
export { type BrokerReply, connectBroker, FdBroker } from './broker/client.ts';
export { FdConnection, type FdMessageExpectation, type ReceivedFds } from './broker/fd-connection.ts';
export { HmpClient, HmpError } from './broker/hmp-client.ts';
export { BROKER_ERROR_CODES, BrokerError, type BrokerErrorCode } from './broker/protocol.ts';
export {
  MonitorError,
  type MonitorErrorCode,
  QmpClient,
  type QmpConnectOptions,
  QmpError,
  type QmpEvent,
  type QmpExecuteOptions,
  type QmpVersion,
} from './broker/qmp-client.ts';
export { Activity, type ClientRecord, type DeviceRecord, type NotedRequest, type Tally } from './scsi/activity.ts';
export { connectPrManager, openPrManager, type PrAnswer, type PrManagerClient } from './scsi/client.ts';
export { type AccessEntry, formatAccess } from './scsi/describe.ts';
export { type DeviceRule, type DeviceRules, parseDeviceRule } from './scsi/device-rules.ts';
export { createAnswerQueue, type MultipathRoute } from './scsi/executor.ts';
export {
  createMultipathRoute,
  type ManagedMultipathRoute,
  type MultipathPolicy,
  type MultipathRouteOptions,
} from './scsi/multipath/route.ts';
export * from './scsi/parameter-data.ts';
export * from './scsi/persistent-reserve.ts';
export { describeSense, parseSense, type Sense, writeSense } from './scsi/sense.ts';
export {
  createPrHelperServer,
  type PrHelperServer,
  type PrHelperServerOptions,
  type PrServerStatus,
} from './scsi/server.ts';
export { judgeOutcome, nameStatus, type SgOutcome, type Verdict } from './scsi/status.ts';
export { loadNative } from './sys/native.ts';
export type { NativeAddon } from './sys/native-addon.ts';
export type { OpenFile, SgQueue } from './sys/sg.ts';
export { connectUnix, createSocketPair, listenUnix } from './sys/unix-socket.ts';
