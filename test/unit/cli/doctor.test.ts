import { describe, expect, it } from 'vitest';
import { AclError, readAcl } from '../../../src/bridge/acl.ts';
import { parseAclText } from '../../../src/bridge/acl-text.ts';
import { exitStatusOf, fine, formatFindings, limited, missing } from '../../../src/cli/doctor/finding.ts';
import {
  judgeBridgeAcl,
  judgeBuffers,
  judgeLowPorts,
  judgeOpenFiles,
  judgePingGroups,
  judgeQemu,
  judgeRawIo,
  judgeSeccomp,
} from '../../../src/cli/doctor/judge.ts';
import { examineMachine } from '../../../src/cli/doctor/probe.ts';

describe('the doctor judges', () => {
  it.each([
    ['1\t0\n', [0], 'limited'],
    ['0\t2147483647\n', [1000], 'ok'],
    ['100\t200\n', [1000, 150], 'ok'],
    ['100\t200\n', [1000], 'limited'],
  ])('ping_group_range %j for the groups %j: %s', (range, groups, state) => {
    expect(judgePingGroups(range, groups).state).toBe(state);
  });
  it('ports that need rights', () => {
    expect(judgeLowPorts('1024\n', false)).toMatchObject({ state: 'limited', found: expect.stringContaining('1024') });
    expect(judgeLowPorts('1024\n', true).state).toBe('ok');
    expect(judgeLowPorts('0\n', false).state).toBe('ok');
  });
  it('the right to send commands to devices', () => {
    expect(judgeRawIo('CapPrm:\t0000000000020000\nCapEff:\t0000000000020000\n').state).toBe('ok');
    expect(judgeRawIo('CapPrm:\t0000000000020000\nCapEff:\t0000000000000000\n').state).toBe('limited');
    expect(judgeRawIo('').state).toBe('limited');
  });
  it('the access list of bridges', () => {
    const acl = (text: string) => ({ path: '/f', rules: parseAclText(Buffer.from(text), '/f'), passedOver: [] });
    expect(judgeBridgeAcl('/f', () => acl('allow br0\nallow all\ndeny br1\n'))).toMatchObject({
      state: 'ok',
      found: '/f allows br0, all',
    });
    expect(judgeBridgeAcl('/f', () => acl(''))).toMatchObject({ state: 'ok', found: '/f allows no bridge' });
    expect(judgeBridgeAcl('/none/f', () => readAcl('/none/f'))).toMatchObject({
      state: 'limited',
      found: 'there is no /none/f',
    });
    const wrong = () => {
      throw new AclError('/f:2', "unknown command 'x'");
    };
    expect(judgeBridgeAcl('/f', wrong)).toMatchObject({ state: 'limited', found: "/f:2: unknown command 'x'" });
  });
  it('socket buffers by the smaller of the two', () => {
    expect(judgeBuffers('212992\n', '16777216\n').state).toBe('limited');
    expect(judgeBuffers('16777216\n', '16777216\n').state).toBe('ok');
  });
  it('seccomp by the actions that a filter needs', () => {
    expect(judgeSeccomp('kill_process kill_thread trap errno user_notif trace log allow\n').state).toBe('ok');
    expect(judgeSeccomp('kill trap errno trace allow\n').state).toBe('limited');
    expect(judgeSeccomp(undefined).state).toBe('limited');
  });
  it('the hard limit of open files', () => {
    const line = (hard: string): string =>
      `Max open files            1024                 ${hard}               files\n`;
    expect(judgeOpenFiles(line('1024')).state).toBe('limited');
    expect(judgeOpenFiles(line('1048576')).state).toBe('ok');
    expect(judgeOpenFiles(line('unlimited')).state).toBe('ok');
  });
  it('QEMU by what it has, not by its number', () => {
    const version = (number: string): string => `QEMU emulator version ${number} (Debian)`;
    expect(judgeQemu('q', version('7.2.9'), 'Available netdev backend types:\nsocket\nstream\ndgram\n').state).toBe(
      'ok',
    );
    expect(judgeQemu('q', version('6.2.0'), 'socket\n')).toMatchObject({
      state: 'limited',
      found: 'q 6.2 without -netdev stream',
    });
    expect(judgeQemu('q', '', '').state).toBe('limited');
  });
});

describe('the doctor', () => {
  it('finds something to say about everything on this machine, and what to do where not all is well', () => {
    const findings = examineMachine();
    const ids = findings.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toEqual(expect.arrayContaining(['node', 'addon', 'ping-sockets', 'user-namespaces', 'qemu', 'kvm']));
    for (const { state, found, consequence, remedy } of findings) {
      expect(found).not.toBe('');
      expect([consequence !== '', remedy !== '']).toEqual([state !== 'ok', state !== 'ok']);
    }
    expect(findings.slice(0, 2).map(({ state }) => state)).toEqual(['ok', 'ok']);
  });
  it('ends with status 1 only where something is missing', () => {
    expect(exitStatusOf([fine('a', 'x'), limited('b', 'x', 'y', 'z')])).toBe(0);
    expect(exitStatusOf([fine('a', 'x'), missing('b', 'x', 'y', 'z')])).toBe(1);
  });
  it('puts consequence and remedy below what it found', () => {
    expect(formatFindings([fine('one', 'good'), missing('three', 'bad', 'so it is', 'do this')]).split('\n')).toEqual([
      'ok      one    good',
      'MISSING three  bad',
      '               so it is',
      '               -> do this',
      '',
    ]);
  });
});
