/** The bridge helper of somebody who may not make taps: the broker makes it, if it finds that this user may have it. */
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { OwnedFd } from '../../base/owned-fd.ts';
import type { AttachRequest } from '../../bridge/attach.ts';
import { connectBroker, type FdBroker } from '../../broker/client.ts';
import { BrokerError } from '../../broker/protocol.ts';
import type { NativeAddon } from '../../sys/native.ts';
import { BROKER_VARIABLE, defaultAskPath } from '../fd-broker/socket-path.ts';

/**
 * @returns the tap's descriptors, one a queue, the caller's
 * @throws PasselError PASSEL_E_BROKER when nobody answers, PASSEL_E_BRIDGE with what the broker said
 */
export async function requestTap(native: NativeAddon, request: AttachRequest): Promise<readonly OwnedFd[]> {
  const path = defaultAskPath();
  const broker = connect(native, path);
  try {
    const { bridge, vnetHeader, tapName, isolated = false, queues = 1 } = request;
    const named = tapName === undefined ? {} : { tapName };
    const { fds } = await broker.ask('tap', { bridge, vnetHeader, isolated, queues, ...named });
    return fds;
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error;
    throw new PasselError('PASSEL_E_BRIDGE', { reason: error.message }, { cause: error });
  } finally {
    broker.close();
  }
}

function connect(native: NativeAddon, path: string): FdBroker {
  try {
    return connectBroker(native, path);
  } catch (error) {
    throw new PasselError(
      'PASSEL_E_BROKER',
      { value: path, reason: reasonOf(error) },
      {
        hint: `making a tap takes CAP_NET_ADMIN or a broker that has it: root runs "passel-fd-broker serve"; ${BROKER_VARIABLE} names another socket`,
        cause: error,
      },
    );
  }
}
