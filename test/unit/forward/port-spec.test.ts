import { describe, expect, it } from 'vitest';
import { PasselError } from '../../../src/base/errors.ts';
import {
  DEFAULT_EPHEMERAL,
  formatPortForward,
  isSameForward,
  type PortForwardRule,
  parseEphemeralRange,
  parsePortSpec,
  parsePortSpecs,
} from '../../../src/forward/port-spec.ts';

const EPHEMERAL = { first: 32768, last: 60999 };
const parse = (spec: string): PortForwardRule[] => parsePortSpec('--tcp-ports', 'tcp', spec, EPHEMERAL);

/** A rule in the notation of the specification, so that expectations stay readable. */
function show(rule: PortForwardRule): string {
  const bind = rule.bindAddress ?? '';
  const device = rule.bindInterface === undefined ? '' : `%${rule.bindInterface}`;
  const prefix = bind + device === '' ? '' : `${bind}${device}/`;
  const target = rule.targetAddress === undefined ? '' : `${rule.targetAddress}/`;
  const flags = `${rule.weak ? ' weak' : ''}${rule.scan ? ' scan' : ''}`;
  return `${prefix}${rule.first}-${rule.last}:${target}${rule.targetFirst}${flags}`;
}

describe('a unix socket in the place of ports', () => {
  it.each([
    ['unix:/run/a:22', { bindPath: '/run/a', targetFirst: 22 }],
    ['unix:/run/a:b,c%d:22', { bindPath: '/run/a:b,c%d', targetFirst: 22 }],
    ['unix:@name:65535', { bindPath: '@name', targetFirst: 65535 }],
    ['unix:a:192.0.2.1/80', { bindPath: 'a', targetAddress: '192.0.2.1', targetFirst: 80 }],
    ['unix:/x/y:[2001:db8::1]/80', { bindPath: '/x/y', targetAddress: '2001:db8::1', targetFirst: 80 }],
  ])('is read from %s, and written so', (spec, expected) => {
    const [rule, ...others] = parse(spec);
    expect([rule, others]).toEqual([{ proto: 'tcp', first: 0, last: 0, weak: false, scan: false, ...expected }, []]);
    expect(formatPortForward(rule!)).toBe(spec);
    expect(isSameForward(rule!, parse(spec)[0]!)).toBe(true);
    expect(isSameForward(rule!, { ...rule!, bindPath: '/other' })).toBe(false);
  });
  it('may be that of a guest', () => {
    const [rule] = parsePortSpec('-t', 'tcp', 'unix:/run/a:web/22', EPHEMERAL, ['web']);
    expect(rule).toMatchObject({ bindPath: '/run/a', targetGuest: 'web', targetFirst: 22 });
  });
  it.each([
    'unix:',
    'unix:/a',
    'unix::22',
    'unix:@:22',
    'unix:/a:',
    'unix:/a:0',
    'unix:/a:70000',
    'unix:/a:1-2',
    'unix:/a:b/1',
  ])('is refused as %s', (spec) => {
    expect(() => parse(spec)).toThrow(PasselError);
  });
  it('has a path that fits, leads to one place, and takes connections only', () => {
    expect(parse(`unix:/${'a'.repeat(106)}:1`)).toHaveLength(1);
    expect(() => parse(`unix:/${'a'.repeat(107)}:1`)).toThrow(/unix sockets allow 107/);
    expect(parse(`unix:@${'a'.repeat(107)}:1`)).toHaveLength(1);
    expect(() => parse(`unix:@${'a'.repeat(108)}:1`)).toThrow(/unix sockets allow 107/);
    const both = ['unix:/a:1', 'unix:/b:1', '1'];
    expect(parsePortSpecs('-t', 'tcp', both, EPHEMERAL)).toHaveLength(3);
    expect(() => parsePortSpecs('-t', 'tcp', ['unix:/a:1', 'unix:/a:2'], EPHEMERAL)).toThrow(
      /\/a was forwarded elsewhere/,
    );
    expect(() => parsePortSpec('-u', 'udp', 'unix:/a:1', EPHEMERAL)).toThrow(/UDP/);
  });
});

describe('port specifications', () => {
  const accepted: [spec: string, rules: string[]][] = [
    ['none', []],
    ['22', ['22-22:22']],
    ['22:23', ['22-22:23']],
    ['22,25', ['22-22:22', '25-25:25']],
    ['22-80', ['22-80:22']],
    ['22-80:32-90', ['22-80:32']],
    ['192.0.2.1/22', ['192.0.2.1/22-22:22']],
    ['192.0.2.1%eth0/22', ['192.0.2.1%eth0/22-22:22']],
    ['%eth0/22', ['%eth0/22-22:22']],
    ['::1/22', ['::1/22-22:22']],
    ['[2001:db8::1]%eth0.5/22', ['2001:db8::1%eth0.5/22-22:22']],
    ['2000-5000,~3000-3010', ['2000-2999:2000', '3011-5000:3011']],
    ['~3000-3010,2000-5000:12000-15000', ['2000-2999:12000', '3011-5000:13011']],
    ['192.0.2.1/20-30,~25', ['192.0.2.1/20-24:20', '192.0.2.1/26-30:26']],
    ['~20000-20010', ['1-19999:1 weak', '20011-32767:20011 weak', '61000-65535:61000 weak']],
    ['all', ['1-32767:1 weak', '61000-65535:61000 weak']],
    ['all,~1-1023', ['1024-32767:1024 weak', '61000-65535:61000 weak']],
    ['192.0.2.1/all', ['192.0.2.1/1-32767:1 weak', '192.0.2.1/61000-65535:61000 weak']],
    ['all,8080:80', ['1-8079:1 weak', '8080-8080:80', '8081-32767:8081 weak', '61000-65535:61000 weak']],
    ['auto', ['1-65535:1 weak scan']],
    ['auto,8000-8099', ['8000-8099:8000 scan']],
    ['auto,~22', ['1-21:1 weak scan', '23-65535:23 weak scan']],
    ['8080:192.0.2.7/80', ['8080-8080:192.0.2.7/80']],
    ['8080:[fd00::1]/80', ['8080-8080:fd00::1/80']],
    ['22,8080:192.0.2.7/80', ['22-22:22', '8080-8080:192.0.2.7/80']],
    ['127.0.0.1/8080:192.0.2.7/80', ['127.0.0.1/8080-8080:192.0.2.7/80']],
    ['::1/8080-8081:fd00::1/80-81', ['::1/8080-8081:fd00::1/80']],
    ['40000', ['40000-40000:40000']],
    ['65535', ['65535-65535:65535']],
  ];
  it.each(accepted)('%s is understood', (spec, rules) => {
    expect(parse(spec).map(show)).toEqual(rules);
  });

  const refused: [spec: string, problem: RegExp][] = [
    ['', /nothing given/],
    ['22-', /not a port or a range/],
    ['-22', /not a port or a range/],
    ['22,', /empty list item/],
    ['0', /port 0 cannot be forwarded/],
    ['0-5', /port 0/],
    ['65536', /ports end at 65535/],
    ['1-70000', /ports end at 65535/],
    ['999999', /not a port/],
    ['5-3', /ends before it begins/],
    ['22:23:24', /not a port/],
    ['22-24:5-6', /maps 3 ports to 2/],
    ['22-24:5', /maps 3 ports to 1/],
    ['22,none', /'none' cannot be combined/],
    ['foo/22', /'foo' is not an address/],
    ['/22', /nothing before/],
    ['1.2.3.4%/22', /not an interface name/],
    ['1.2.3.4%averyverylongname0/22', /not an interface name/],
    ['[1.2.3.4]/22', /not an address/],
    ['8080:foo/80', /not an address/],
    ['1.2.3/22', /not an address/],
    ['22,20-30', /port 22 is given twice/],
    ['22,~22', /leave no port/],
    ['~1-65535', /leave no port/],
    ['ssh', /'ssh' is not a port/],
    ['22 ', /not a port/],
  ];
  it.each(refused)('%j is refused with the reason', (spec, problem) => {
    expect(() => parse(spec)).toThrow(problem);
    try {
      parse(spec);
    } catch (error) {
      expect(error).toBeInstanceOf(PasselError);
      expect((error as PasselError).code).toBe('PASSEL_E_PORT_SPEC');
      expect((error as PasselError).message).toContain(`--tcp-ports: '${spec}'`);
    }
  });
});

describe('a repeated port option', () => {
  const parseAll = (...specs: string[]): string[] => parsePortSpecs('-t', 'tcp', specs, EPHEMERAL).map(show);

  it('adds up', () => {
    expect(parseAll('22', '127.0.0.1/22', '80:8080')).toEqual(['22-22:22', '127.0.0.1/22-22:22', '80-80:8080']);
  });
  it('takes the same rule twice as one', () => {
    expect(parseAll('22', '22')).toEqual(['22-22:22']);
  });
  it('refuses one host port with two targets', () => {
    expect(() => parseAll('22:23', '22:24')).toThrow(/port 22 was forwarded elsewhere/);
  });
  it('binds exact rules before sweeping ones', () => {
    expect(parseAll('all', '8080:80')[0]).toBe('8080-8080:80');
  });
  it('takes a trailing none', () => {
    expect(parseAll('22', 'none')).toEqual(['22-22:22']);
  });
});

describe('the ephemeral range', () => {
  it('is read from the two numbers of the kernel', () => {
    expect(parseEphemeralRange('1024\t2048\n')).toEqual({ first: 1024, last: 2048 });
  });
  it.each(['', 'x', '5 3', '0 70000'])('falls back to the default for %j', (text) => {
    expect(parseEphemeralRange(text)).toEqual(DEFAULT_EPHEMERAL);
  });
});

describe('a rule in words', () => {
  it.each([
    '22',
    '22:2222',
    '20-22:30-32',
    '127.0.0.1/80:8080',
    '%eth0/80',
    '::1%eth0/80-81',
    '80:192.0.2.9/80',
    '80:[fd00::1]/81',
  ])('%s gives the same rule', (spec) => {
    const [rule] = parsePortSpec('-t', 'tcp', spec, DEFAULT_EPHEMERAL);
    expect(formatPortForward(rule!)).toBe(spec);
  });
  it('is the same with an address in another form, and not with another address', () => {
    const parse = (spec: string) => parsePortSpec('-t', 'tcp', spec, DEFAULT_EPHEMERAL)[0]!;
    expect(isSameForward(parse('::1/80'), parse('0:0::1/80'))).toBe(true);
    expect(isSameForward(parse('::1/80'), parse('::2/80'))).toBe(false);
    expect(isSameForward(parse('::1/80'), parse('80'))).toBe(false);
    expect(isSameForward(parse('80'), parse('80:81'))).toBe(false);
  });
});

describe('a target among several guests', () => {
  const guests = ['web', 'db-1'];
  const parse = (...specs: string[]): PortForwardRule[] => parsePortSpecs('-t', 'tcp', specs, EPHEMERAL, guests);

  it.each(['2222:web/22', '127.0.0.1/5432:db-1/5432', '80-81:web/8080-8081'])('%s names one', (spec) => {
    const [rule] = parse(spec);
    expect(rule!.targetGuest).toBe(/web|db-1/.exec(spec)![0]);
    expect(rule!.targetAddress).toBeUndefined();
    expect(formatPortForward(rule!)).toBe(spec);
  });
  it('stands beside addresses and bare ports', () => {
    const rules = parse('22:web/22,23:10.0.2.16/23,24');
    expect(rules.map((rule) => [rule.targetGuest, rule.targetAddress])).toEqual([
      ['web', undefined],
      [undefined, '10.0.2.16'],
      [undefined, undefined],
    ]);
  });
  it('is part of what a rule is', () => {
    const [web, db, none] = ['22:web/22', '22:db-1/22', '22'].map((spec) => parse(spec)[0]!);
    expect([isSameForward(web!, db!), isSameForward(web!, none!), isSameForward(web!, web!)]).toEqual([
      false,
      false,
      true,
    ]);
    expect(() => parse('22:web/22', '22:db-1/22')).toThrow(/port 22 was forwarded elsewhere/);
  });
  it('is refused when there is no such guest, or none has a name', () => {
    expect(() => parse('22:mail/22')).toThrow(/no guest is called 'mail', but web, db-1/);
    expect(() => parsePortSpecs('-t', 'tcp', ['22:web/22'], EPHEMERAL)).toThrow(/'web' is not an address/);
  });
});
