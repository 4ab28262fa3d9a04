/** The name server as a service of the guest's network, for those who ask by TCP. */
import type { StreamClients } from '../../forward/dns/stream-clients.ts';
import { DNS_PORT } from '../../stack/dns.ts';
import type { GuestServices, NameServer } from '../../stack/ports.ts';

/** No rule of the command line has this number. */
const NAMES_SERVICE = 0x10000;

/**
 * @param others - what the guest has besides
 * @param onConnection - as `NetworkStack.onServiceAnswer`
 */
export function serveNamesByTcp(
  server: NameServer,
  clients: StreamClients,
  others: GuestServices | undefined,
  onConnection: (index: number, generation: number, fd: number) => void,
): GuestServices {
  return {
    find(address, port) {
      if (port === DNS_PORT && server.isAt(address)) return NAMES_SERVICE;
      return others?.find(address, port) ?? -1;
    },
    targetOf: (service) => (service === NAMES_SERVICE ? undefined : others?.targetOf(service)),
    connect(service, index, generation) {
      if (service !== NAMES_SERVICE) return others?.connect(service, index, generation) === true;
      const fd = clients.open();
      if (fd < 0) return false;
      // The stack takes answers in a later turn only.
      setImmediate(() => onConnection(index, generation, fd));
      return true;
    },
    openFile: others?.openFile,
    fileBytes: (fd) => others?.fileBytes(fd) ?? -1,
    readFile: (fd, offset, lengthBytes, position) => others?.readFile(fd, offset, lengthBytes, position) ?? -1,
  };
}
