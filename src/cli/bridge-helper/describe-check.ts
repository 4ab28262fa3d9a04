/** What `--check` says: the rule that decides, and what would be done. Nothing is made for it. */

import { printable, reasonOf } from '../../base/errors.ts';
import type { Acl, AclVerdict } from '../../bridge/acl.ts';
import type { AclRule } from '../../bridge/acl-text.ts';
import { type AttachRequest, lookUpBridge } from '../../bridge/attach.ts';
import type { NativeAddon } from '../../sys/native.ts';

export interface CheckSubject {
  readonly acl: Acl;
  readonly verdict: AclVerdict;
  readonly request: AttachRequest;
  /** This process could make the tap by itself. */
  readonly netAdmin: boolean;
}

/** @returns lines for a person, with a final newline */
export function describeCheck(native: NativeAddon, subject: CheckSubject): string {
  const { acl, verdict, request } = subject;
  const lines = [`access list: ${acl.path}, ${acl.rules.length} ${acl.rules.length === 1 ? 'rule' : 'rules'}`];
  for (const rule of acl.passedOver) lines.push(`passed over: ${describeRule(rule)} (not readable by this user)`);
  const decision = verdict.granted ? 'allowed' : 'denied';
  const by = verdict.rule === undefined ? 'no rule names it' : describeRule(verdict.rule);
  lines.push(`bridge '${request.bridge}': ${decision}: ${by}`);
  if (verdict.granted) lines.push(...describeWork(native, subject));
  return `${lines.map(printable).join('\n')}\n`;
}

function describeRule({ file, line, kind, argument }: AclRule): string {
  return `${file}:${line}: ${kind} ${argument}`;
}

function describeWork(native: NativeAddon, { request, netAdmin }: CheckSubject): string[] {
  const { bridge, tapName = 'tap%d', queues = 1, vnetHeader, isolated } = request;
  if (!netAdmin) return ['this process lacks CAP_NET_ADMIN: it could not make the tap'];
  try {
    const mtu = lookUpBridge(native, bridge);
    const extras = [vnetHeader ? ', virtio-net header' : '', isolated ? ', isolated' : ''].join('');
    return [`would make: tap '${tapName}', ${queues} ${queues === 1 ? 'queue' : 'queues'}, MTU ${mtu}${extras}`];
  } catch (error) {
    return [`would fail: ${reasonOf(error)}`];
  }
}
