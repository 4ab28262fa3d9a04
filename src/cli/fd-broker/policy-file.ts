/** The policy file of `passel-fd-broker serve`. */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { PasselError, reasonOf } from '../../base/errors.ts';
import { defaultPolicy, type Policy, parsePolicy } from '../../broker/policy.ts';
import { whyNotTrusted } from '../../sys/file-trust.ts';
import { checkNetworks } from './network-maker.ts';

/**
 * @param path - undefined: what counts without one
 * @throws PasselError PASSEL_E_FILE, PASSEL_E_POLICY
 */
export function readPolicy(path: string | undefined, trustWritable: boolean): Policy {
  if (path === undefined) return defaultPolicy(process.getuid?.() ?? 0);
  const text = readPolicyFile(path, trustWritable);
  try {
    const policy = parsePolicy(text);
    checkNetworks(policy);
    return policy;
  } catch (error) {
    throw new PasselError('PASSEL_E_POLICY', { value: path, reason: reasonOf(error) }, { cause: error });
  }
}

function readPolicyFile(path: string, trustWritable: boolean): string {
  try {
    const fd = openSync(path, 'r');
    try {
      const doubt = trustWritable ? undefined : whyNotTrusted(fstatSync(fd));
      if (doubt !== undefined) throw new Error(doubt);
      return readFileSync(fd, 'utf8');
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw new PasselError(
      'PASSEL_E_FILE',
      { option: '--policy', value: path, reason: reasonOf(error) },
      { cause: error },
    );
  }
}
