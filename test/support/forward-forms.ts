/** The forms of a port specification, for the forwarding matrices of passt and pasta. */

/** One form of a port specification, and what it makes of one port. */
export interface Form {
  name: string;
  /** For -t and -u. `own` and `loopback` are addresses of the family under test. */
  spec(own: string, loopback: string): string;
  port: number;
  /** Where it comes out; undefined: nowhere. */
  guestPort?: number;
  /** Reachable from there only. */
  only?: 'tap' | 'loopback';
}

export const FORWARD_FORMS: Form[] = [
  { name: 'a single port', spec: () => '6001', port: 6001, guestPort: 6001 },
  { name: 'the first of a range', spec: () => '6010-6012', port: 6010, guestPort: 6010 },
  { name: 'the last of a range', spec: () => '6010-6012', port: 6012, guestPort: 6012 },
  { name: 'a port beside a range', spec: () => '6010-6012', port: 6013 },
  { name: 'another port', spec: () => '6002:6102', port: 6002, guestPort: 6102 },
  { name: 'the first of another range', spec: () => '6020-6022:6120-6122', port: 6020, guestPort: 6120 },
  { name: 'the last of another range', spec: () => '6020-6022:6120-6122', port: 6022, guestPort: 6122 },
  { name: 'a port bound to an address', spec: (own) => `${own}/6030`, port: 6030, guestPort: 6030, only: 'tap' },
  {
    name: 'a range bound to an address that becomes another',
    spec: (own) => `${own}/6033-6034:6133-6134`,
    port: 6034,
    guestPort: 6134,
    only: 'tap',
  },
  {
    name: 'a port bound to loopback',
    spec: (_own, loopback) => `${loopback}/6031`,
    port: 6031,
    guestPort: 6031,
    only: 'loopback',
  },
  { name: 'a port bound to an interface', spec: (own) => `${own}%eth0/6060`, port: 6060, guestPort: 6060, only: 'tap' },
  { name: 'an excluded port', spec: () => '6040-6044,~6042', port: 6042 },
  { name: 'a port beside an excluded one', spec: () => '6040-6044,~6042', port: 6043, guestPort: 6043 },
];

/** One datagram suffices where none arrives. */
export const ONE = [1000];
