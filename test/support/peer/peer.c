/*
 * Traffic for tests and measurements, at either end: one epoll loop, any number of connections, JSON on standard output.
 *
 *   peer listen  --port P [--addr A] [--accept N] [connection options]
 *   peer connect --addr A --port P [--count N] [--parallel M] [--pace N] [--bind A] [connection options]
 *   peer rr | crr --addr A --port P [--size B] [--count N] [--duration S]     against: listen --echo
 *   peer udp-listen, udp-send, udp-stream                                     see udp.h
 *
 * Connection options (either side):
 *   --send BYTES       bytes to send, with suffix k, m, g; a pattern that depends on connection and position
 *   --duration S       send for so long instead
 *   --echo             send back what arrives
 *   --finish HOW       after sending: fin (then read to the end; default), rst (linger 0), close, wait (for the peer's end first)
 *   --finish-after-recv BYTES   ... and not before so much has arrived
 *   --send-after-eof   start sending when the peer has half-closed
 *   --barrier          connect: nobody sends before all of --count are connected
 *   --pace N           connect: no more than N connects under way at once
 *   --stall-ms N, --stall-at BYTES   stop reading for so long once so much has arrived
 *   --rcvbuf, --sndbuf BYTES; --no-verify (do not look at the bytes); --timeout S (give up and report; default 60)
 *
 * The first eight bytes of a stream carry its seed, so that the receiver can tell every later byte: one that is lost, doubled,
 * swapped or belongs to another connection does not fit.
 */
#include "peer.h"

#include "tcp.h"
#include "udp.h"

int main(int argc, char **argv) {
  if (argc < 2) die("a mode is needed: listen, connect, rr, crr, udp-listen, udp-send, udp-stream");
  const char *mode = argv[1];
  struct options o = parse_options(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  raise_fd_limit();
  if (!strcmp(mode, "listen")) run_tcp(&o, true);
  else if (!strcmp(mode, "connect")) run_tcp(&o, false);
  else if (!strcmp(mode, "rr")) run_latency(&o, false);
  else if (!strcmp(mode, "crr")) run_latency(&o, true);
  else if (!strcmp(mode, "udp-listen")) run_udp_listen(&o);
  else if (!strcmp(mode, "udp-send")) run_udp_send(&o);
  else if (!strcmp(mode, "udp-stream")) run_udp_stream(&o);
  else die("unknown mode '%s'", mode);
  return 0;
}
