/** Which kind of guest this computer allows, the most real one first. */
import { createBuiltInGuest } from './built-in-guest.ts';
import type { DemoGuest, GuestKind } from './demo-guest.ts';
import { createNamespaceGuest, lackForNamespaceGuest } from './namespace-guest.ts';
import { createQemuGuest, lackForQemuGuest } from './qemu-guest.ts';

/** A kind of guest that can be had. */
export interface GuestChoice {
  readonly kind: GuestKind;
  /** @param fd - the guest's end of the socket pair; belongs to the guest from here on */
  create(fd: number): Promise<DemoGuest>;
}

export interface Choices {
  readonly possible: readonly GuestChoice[];
  /** Kinds that are not possible, with what they lack. */
  readonly lacking: readonly { readonly kind: GuestKind; readonly reason: string }[];
}

/** Looks at what is there; starts nothing that stays. */
export async function listGuestChoices(): Promise<Choices> {
  const possible: GuestChoice[] = [];
  const lacking: { kind: GuestKind; reason: string }[] = [];
  const offer = (kind: GuestKind, lack: string | undefined, create: GuestChoice['create']): void => {
    if (lack === undefined) possible.push({ kind, create });
    else lacking.push({ kind, reason: lack });
  };
  offer('qemu', lackForQemuGuest(), createQemuGuest);
  offer('namespace', lackForNamespaceGuest(), createNamespaceGuest);
  offer('built-in', undefined, async (fd) => createBuiltInGuest(fd));
  return { possible, lacking };
}
