/** What to add to a QEMU command line so that its guest has a NIC on a stream socket that QEMU inherits. */
import type { QemuCommand } from './command-line.ts';
import { escapeValue, formatOptionList } from './option-string.ts';

/** An id that is not taken. */
function freshId(command: QemuCommand): string {
  let id = 'passel0';
  for (let number = 1; command.ids.has(id); number++) id = `passel${number}`;
  return id;
}

/**
 * The virtio NIC of a machine.
 * @returns a device name for `-device`
 */
export function pickNicModel(command: QemuCommand): string {
  if (command.architecture === 's390x') return 'virtio-net-ccw';
  return command.machine === 'microvm' ? 'virtio-net-device' : 'virtio-net-pci';
}

/**
 * Arguments to append; empty if the command has a network already, or no machine to plug one into. A NIC that refers to a
 * netdev which is not there gets exactly that netdev.
 * @param fd - the number of the connected socket in QEMU
 * @param nicModel - `-device` model with properties, or undefined for {@link pickNicModel}
 */
export function networkArguments(command: QemuCommand, fd: number, nicModel: string | undefined): string[] {
  if (command.hasNetwork || command.machine === 'none') return [];
  const [wanted] = command.wantedNetdevs;
  const id = wanted ?? freshId(command);
  const netdev = [
    { key: 'type', value: 'stream' },
    { key: 'id', value: id },
    { key: 'server', value: 'off' },
    { key: 'addr.type', value: 'fd' },
    { key: 'addr.str', value: String(fd) },
  ];
  const backend = ['-netdev', formatOptionList(netdev, 'type')];
  if (wanted !== undefined) return backend;
  // The model is the user's, who may have given properties with it.
  return [...backend, '-device', `${nicModel ?? pickNicModel(command)},netdev=${escapeValue(id)}`];
}
