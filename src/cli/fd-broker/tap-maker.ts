/**
 * The broker's verb `tap`: the bridge helper's decision and work, for somebody else. The access list is read with that user's rights, so
 * an include that they may not read does not apply to them, as if they had run the helper themselves.
 */
import { constants } from 'node:fs';
import { AclError, decideAcl, readAcl } from '../../bridge/acl.ts';
import { whyNoInterfaceName } from '../../bridge/acl-text.ts';
import { AttachError, attachTap } from '../../bridge/attach.ts';
import type { Peer } from '../../broker/policy.ts';
import { BrokerError } from '../../broker/protocol.ts';
import type { TapMaker } from '../../broker/verbs.ts';
import { checkStatus } from '../../sys/errors.ts';
import type { NativeAddon } from '../../sys/native.ts';

export interface TapMakerOptions {
  readonly native: NativeAddon;
  readonly aclPath: string;
  readonly trustWritable: boolean;
}

export function createTapMaker({ native, aclPath, trustWritable }: TapMakerOptions): TapMaker {
  return (asked, peer) => {
    const bridge = Buffer.from(asked.bridge).toString('latin1');
    const problem =
      whyNoInterfaceName(bridge) ?? (asked.tapName === undefined ? undefined : whyNoInterfaceName(asked.tapName));
    if (problem !== undefined) throw new BrokerError('bad-request', `no name of an interface: ${problem}`);
    checkAcl(bridge, peer);
    try {
      const { bridge: _bridge, vnetHeader = false, tapName, isolated = false, queues = 1 } = asked;
      const named = tapName === undefined ? {} : { tapName };
      const tap = attachTap(native, { bridge, vnetHeader, isolated, queues, ...named });
      return {
        fds: tap.fds,
        result: { tap: tap.name, bridge: asked.bridge, mtu: tap.mtu, vnetHeader: tap.vnetHeader },
      };
    } catch (error) {
      if (!(error instanceof AttachError)) throw error;
      throw new BrokerError('system', error.message, (error.cause as NodeJS.ErrnoException | undefined)?.code);
    }
  };

  function checkAcl(bridge: string, peer: Peer): void {
    try {
      const acl = readAcl(aclPath, { open: (path) => openAs(path, peer), trustWritable, absoluteOnly: true });
      const verdict = decideAcl(acl, bridge);
      if (verdict.granted) return;
      const { rule } = verdict;
      const reason =
        rule === undefined
          ? `nothing in '${aclPath}' allows it`
          : `${rule.file}:${rule.line}: ${rule.kind} ${rule.argument}`;
      throw new BrokerError('denied', `access denied by acl file: bridge '${bridge}': ${reason}`);
    } catch (error) {
      if (!(error instanceof AclError)) throw error;
      throw new BrokerError('denied', `failed to parse acl file '${error.place}': ${error.message}`);
    }
  }

  function openAs(path: string, { uid, gid, groups }: Peer): number {
    const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
    return checkStatus(native.openAs(path, flags, uid, gid, Int32Array.from(groups), groups.length), 'open', path);
  }
}
