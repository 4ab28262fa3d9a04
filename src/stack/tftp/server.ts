/**
 * The TFTP server at the host's address in the guest's network (RFC 1350; options blksize, tsize and timeout by RFC 2347, 2348, 2349): what
 * a network card's firmware boots from. It only gives, and only in binary mode.
 *
 * A transfer is a flow, whose host side is the file, opened by another process (`GuestServices`): that one sees to it that nothing outside
 * its folder is given. The file is read block by block as it is sent; nothing is kept.
 *
 * States: *opening* until the file is there; then the last message sent (options acknowledged: block 0; or a block of data) waits for its
 * acknowledgement. A message that is not acknowledged within the transfer's timeout (1 s, or the client's option) is sent again, 5 times at
 * most. Old acknowledgements are ignored, so that a doubled one does not double all that follows. The block that is shorter than the others
 * is the last, and once acknowledged the flow ends. Block numbers wrap: a file may be of any length.
 *
 * We answer from port 69, as QEMU's server does, and not from a port of the transfer's own: the guest's port and address tell transfers
 * apart.
 *
 * Not done: writing, mail and netascii; windows of several blocks (RFC 7440).
 */
import { ENOENT } from '../../base/errno.ts';
import { pseudoSumIpv4, pseudoSumIpv6, sumBytes } from '../../wire/checksum.ts';
import { ETHERNET_HEADER_BYTES } from '../../wire/ethernet.ts';
import { IP_PROTOCOL_UDP } from '../../wire/ip-protocol.ts';
import {
  getTftpBlock,
  getTftpOperation,
  parseTftpRequest,
  TFTP_ACK,
  TFTP_DATA_HEADER_BYTES,
  TFTP_DEFAULT_BLOCK_BYTES,
  TFTP_ERROR,
  TFTP_ERROR_ACCESS,
  TFTP_ERROR_NOT_FOUND,
  TFTP_ERROR_OPERATION,
  TFTP_ERROR_OTHER,
  TFTP_ERROR_UNKNOWN_TRANSFER,
  TFTP_MAX_BLOCK_BYTES,
  TFTP_MIN_BLOCK_BYTES,
  TFTP_PORT,
  TFTP_READ,
  TFTP_WRITE,
  type TftpRequest,
  tftpTextsBytes,
  writeTftpDataHeader,
  writeTftpError,
  writeTftpOptionAck,
} from '../../wire/tftp.ts';
import { getUdpLength, getUdpSrcPort, UDP_HEADER_BYTES, writeUdpHeader } from '../../wire/udp.ts';
import type { FlowModule, StackContext } from '../context.ts';
import type { FlowDescription } from '../flow/description.ts';
import { FLOW_TFTP } from '../flow/table.ts';
import { closeIpPacketTo, ipFrameHeaderBytes, openIpPacket } from '../output.ts';
import type { PacketMeta } from '../packet-meta.ts';
import type { GuestServices } from '../ports.ts';

const MAX_TRANSFERS = 64;
const DEFAULT_TIMEOUT_MS = 1000;
const OPEN_TIMEOUT_MS = 10_000;
const MAX_RETRIES = 5;
/** No packet is longer than this, whatever MTU we tell: firmware has small buffers. */
const MAX_MTU = 1500;
const TTL = 64;

interface Transfer {
  readonly request: TftpRequest;
  blockBytes: number;
  timeoutMs: number;
  /** Options that are acknowledged, name and value in turn; empty: the first message is block 1. */
  optionTexts: readonly string[];
  /** Number of the last message sent: 0 the options, else a block; -1 while the file is being opened. */
  block: number;
  fileBytes: number;
  retries: number;
}

export class TftpServer implements FlowModule {
  private readonly ctx: StackContext;
  private readonly services: GuestServices;
  private readonly transfers = new Map<number, Transfer>();

  /** `ctx.services` must be there, with files. */
  constructor(ctx: StackContext) {
    this.ctx = ctx;
    this.services = ctx.services!;
  }

  /**
   * Takes a datagram to port 69, its UDP header checked.
   * @returns whether it was for the server
   */
  input(meta: PacketMeta): boolean {
    const { ctx } = this;
    const { view, flows } = ctx;
    if (!this.isForUs(meta)) return false;
    const at = meta.l4Offset + UDP_HEADER_BYTES;
    const end = meta.l4Offset + getUdpLength(view, meta.l4Offset);
    const guestPort = getUdpSrcPort(view, meta.l4Offset);
    const index = flows.find(FLOW_TFTP, meta.source, 0, guestPort, meta.destination, 0, TFTP_PORT);
    switch (getTftpOperation(view, at, end)) {
      case TFTP_READ:
        this.onRead(parseTftpRequest(view, at, end), index, meta, guestPort);
        break;
      case TFTP_WRITE:
        this.refuse(meta, guestPort, TFTP_ERROR_ACCESS, 'read only');
        break;
      case TFTP_ACK:
        if (index < 0) this.refuse(meta, guestPort, TFTP_ERROR_UNKNOWN_TRANSFER, 'no such transfer');
        else this.onAck(index, getTftpBlock(view, at));
        break;
      case TFTP_ERROR:
        if (index >= 0) flows.retire(index);
        break;
      default:
        ctx.counters.badUdp++;
    }
    return true;
  }

  /** The file of a transfer is open, or cannot be. @param fd - becomes the flow's; or -errno */
  onFile(index: number, fd: number): void {
    const { ctx } = this;
    const transfer = this.transfers.get(index);
    const fileBytes = fd < 0 ? fd : this.services.fileBytes(fd);
    if (transfer === undefined || transfer.block >= 0 || fileBytes < 0) {
      if (fd >= 0) ctx.sockets.close(fd);
      const isMissing = fd === ENOENT;
      ctx.log.debug(`TFTP: '${transfer?.request.fileName}' cannot be opened: errno ${-fileBytes}`);
      this.fail(
        index,
        isMissing ? TFTP_ERROR_NOT_FOUND : TFTP_ERROR_ACCESS,
        isMissing ? 'file not found' : 'not allowed',
      );
      return;
    }
    ctx.flows.fd[index] = fd;
    transfer.fileBytes = fileBytes;
    transfer.optionTexts = this.agree(transfer, ctx.flows.family[index]!);
    transfer.block = transfer.optionTexts.length > 0 ? 0 : 1;
    this.send(index, transfer);
  }

  onHostEvent(): void {}

  onTimer(index: number): void {
    const transfer = this.transfers.get(index);
    if (transfer === undefined || transfer.block < 0 || ++transfer.retries > MAX_RETRIES) {
      if (transfer !== undefined) this.ctx.log.debug(`TFTP: '${transfer.request.fileName}': the guest does not answer`);
      this.ctx.flows.retire(index);
    } else {
      this.send(index, transfer);
    }
  }

  onRoom(index: number): void {
    const transfer = this.transfers.get(index);
    if (transfer !== undefined && transfer.block >= 0) this.send(index, transfer);
  }

  describe(_index: number, description: FlowDescription): void {
    description.state = 'tftp';
  }

  onRelease(index: number): void {
    this.transfers.delete(index);
  }

  private isForUs(meta: PacketMeta): boolean {
    const { ipv4, ipv6 } = this.ctx.config;
    const { destination } = meta;
    if (meta.family === 4) return ipv4 !== undefined && destination[3] === ipv4.gateway;
    return (
      ipv6 !== undefined && [ipv6.gateway, ipv6.ourLinkLocal].some((own) => own.every((w, i) => w === destination[i]))
    );
  }

  private onRead(request: TftpRequest | undefined, before: number, meta: PacketMeta, guestPort: number): void {
    const { ctx } = this;
    const { flows } = ctx;
    if (request === undefined) {
      this.refuse(meta, guestPort, TFTP_ERROR_OPERATION, 'malformed request');
      return;
    }
    if (request.mode !== 'octet') {
      this.refuse(meta, guestPort, TFTP_ERROR_OPERATION, 'binary mode only');
      return;
    }
    if (before >= 0) {
      // Sent again, because the answer takes its time; or another transfer from the same port.
      if (this.transfers.get(before)?.request.fileName === request.fileName && this.transfers.get(before)!.block < 0)
        return;
      flows.retire(before);
    }
    if (flows.live[FLOW_TFTP]! >= MAX_TRANSFERS) {
      this.refuse(meta, guestPort, TFTP_ERROR_OTHER, 'too many transfers');
      return;
    }
    const index = flows.open(FLOW_TFTP, meta.family, meta.source, 0, guestPort, meta.destination, 0, TFTP_PORT);
    if (index < 0) {
      ctx.counters.flowTableFull++;
      return;
    }
    this.transfers.set(index, {
      request,
      blockBytes: TFTP_DEFAULT_BLOCK_BYTES,
      timeoutMs: DEFAULT_TIMEOUT_MS,
      optionTexts: [],
      block: -1,
      fileBytes: 0,
      retries: 0,
    });
    ctx.log.debug(`TFTP: the guest asks for '${request.fileName}'`);
    ctx.timers.arm(index, ctx.nowMs + OPEN_TIMEOUT_MS);
    // The root of the guest's names is the folder.
    const path = request.fileName.replace(/^\/+/, '');
    if (path === '' || !this.services.openFile!(path, index, flows.generation[index]!)) {
      this.fail(index, TFTP_ERROR_NOT_FOUND, 'file not found');
    }
  }

  /** Settles the options. @returns those that are acknowledged, name and value in turn */
  private agree(transfer: Transfer, family: number): string[] {
    const { options } = transfer.request;
    const texts: string[] = [];
    const number = (name: string): number => {
      const text = options.get(name) ?? '';
      return /^\d{1,10}$/.test(text) ? Number(text) : -1;
    };
    const blockBytes = number('blksize');
    if (blockBytes >= TFTP_MIN_BLOCK_BYTES && blockBytes <= TFTP_MAX_BLOCK_BYTES) {
      const headers = ipFrameHeaderBytes(family) - ETHERNET_HEADER_BYTES + UDP_HEADER_BYTES + TFTP_DATA_HEADER_BYTES;
      transfer.blockBytes = Math.min(blockBytes, Math.min(this.ctx.config.mtu, MAX_MTU) - headers);
      texts.push('blksize', String(transfer.blockBytes));
    }
    const seconds = number('timeout');
    if (seconds >= 1 && seconds <= 255) {
      transfer.timeoutMs = seconds * 1000;
      texts.push('timeout', String(seconds));
    }
    if (number('tsize') >= 0) texts.push('tsize', String(transfer.fileBytes));
    return texts;
  }

  private onAck(index: number, block: number): void {
    const { ctx } = this;
    const transfer = this.transfers.get(index);
    if (transfer === undefined || transfer.block < 0 || block !== (transfer.block & 0xffff)) return;
    if (transfer.block > 0 && transfer.block * transfer.blockBytes > transfer.fileBytes) {
      ctx.flows.bytesToGuest[index] = transfer.fileBytes;
      ctx.log.debug(`TFTP: '${transfer.request.fileName}' sent, ${transfer.fileBytes} bytes`);
      ctx.flows.retire(index);
      return;
    }
    ctx.flows.bytesToGuest[index] = transfer.block * transfer.blockBytes;
    transfer.block++;
    transfer.retries = 0;
    this.send(index, transfer);
  }

  /** Sends the message that the transfer is at, for the first time or again. */
  private send(index: number, transfer: Transfer): void {
    const { ctx } = this;
    const { view } = ctx;
    ctx.timers.arm(index, ctx.nowMs + transfer.timeoutMs);
    const { block, blockBytes, optionTexts } = transfer;
    const position = (block - 1) * blockBytes;
    const dataBytes = block === 0 ? 0 : Math.max(0, Math.min(blockBytes, transfer.fileBytes - position));
    const payloadBytes = block === 0 ? 2 + tftpTextsBytes(optionTexts) : TFTP_DATA_HEADER_BYTES + dataBytes;
    const udp = openIpPacket(ctx, ctx.flows.family[index]!, UDP_HEADER_BYTES + payloadBytes);
    if (udp < 0) {
      ctx.roomQueue.add(index);
      return;
    }
    const at = udp + UDP_HEADER_BYTES;
    if (block === 0) {
      writeTftpOptionAck(view, at, optionTexts);
    } else {
      writeTftpDataHeader(view, at, block);
      const fd = ctx.flows.fd[index]!;
      // A file that has become shorter meanwhile cannot be sent as it was announced.
      if (this.services.readFile(fd, at + TFTP_DATA_HEADER_BYTES, dataBytes, position) !== dataBytes) {
        this.fail(index, TFTP_ERROR_OTHER, 'the file cannot be read');
        return;
      }
    }
    const { flows } = ctx;
    this.close(
      udp,
      payloadBytes,
      flows.family[index]!,
      flows.guestAddress,
      index * 4,
      flows.guestPort[index]!,
      flows.peerAddress,
      index * 4,
    );
  }

  /** Ends a transfer with an error. */
  private fail(index: number, code: number, text: string): void {
    const { flows } = this.ctx;
    const { guestAddress, peerAddress } = flows;
    this.sendError(
      flows.family[index]!,
      guestAddress,
      index * 4,
      flows.guestPort[index]!,
      peerAddress,
      index * 4,
      code,
      text,
    );
    flows.retire(index);
  }

  /** Answers with an error what is no transfer's. */
  private refuse(meta: PacketMeta, guestPort: number, code: number, text: string): void {
    this.sendError(meta.family, meta.source, 0, guestPort, meta.destination, 0, code, text);
  }

  private sendError(
    family: number,
    guest: Uint32Array,
    guestAt: number,
    guestPort: number,
    own: Uint32Array,
    ownAt: number,
    code: number,
    text: string,
  ): void {
    const payloadBytes = 4 + tftpTextsBytes([text]);
    const udp = openIpPacket(this.ctx, family, UDP_HEADER_BYTES + payloadBytes);
    if (udp < 0) return;
    writeTftpError(this.ctx.view, udp + UDP_HEADER_BYTES, code, text);
    this.close(udp, payloadBytes, family, guest, guestAt, guestPort, own, ownAt);
  }

  /** Puts the headers in front of a message at `udp` and queues it. */
  private close(
    udp: number,
    payloadBytes: number,
    family: number,
    guest: Uint32Array,
    guestAt: number,
    guestPort: number,
    own: Uint32Array,
    ownAt: number,
  ): void {
    const { ctx } = this;
    const { view } = ctx;
    const length = UDP_HEADER_BYTES + payloadBytes;
    const pseudo =
      family === 4
        ? pseudoSumIpv4(own[ownAt + 3]!, guest[guestAt + 3]!, IP_PROTOCOL_UDP, length)
        : pseudoSumIpv6(own, ownAt, guest, guestAt, IP_PROTOCOL_UDP, length);
    const sum = sumBytes(view, udp + UDP_HEADER_BYTES, payloadBytes, pseudo);
    writeUdpHeader(view, udp, TFTP_PORT, guestPort, length, sum);
    const { macHi, macLo } = ctx.guest;
    closeIpPacketTo(ctx, family, IP_PROTOCOL_UDP, udp, length, own, ownAt, guest, guestAt, TTL, macHi, macLo);
  }
}
