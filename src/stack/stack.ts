/**
 * The network stack of one guest: joins the protocol modules and gives them their turns.
 *
 * A *turn* is what happens between two looks at the poller: a batch of events is handled, then `endTurn` sends what has become due
 * (acknowledgements, one `flush` of the link), lets flows that waited for room go on, frees ended flows, and sets the one timer
 * that stands for all timers of the stack. Nothing in here blocks.
 */
import type { Arena } from '../base/arena.ts';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/logger.ts';
import { ArpModule } from './arp.ts';
import type { StackConfig } from './config.ts';
import type { FlowModule, StackContext } from './context.ts';
import { Counters } from './counters.ts';
import { DhcpModule } from './dhcp.ts';
import { Dhcpv6Module } from './dhcpv6.ts';
import { DnsModule } from './dns.ts';
import { createFlowDescription, type FlowDescription } from './flow/description.ts';
import { DEFAULT_FLOW_CAPACITY, FLOW_PING, FLOW_TCP, FLOW_TFTP, FLOW_UDP, FlowTable } from './flow/table.ts';
import { TimerWheel } from './flow/timer-wheel.ts';
import { Reassembler } from './fragment/reassembly.ts';
import { GuestState } from './guest.ts';
import { EchoModule } from './icmp/echo.ts';
import { IcmpErrorSender } from './icmp/errors.ts';
import type { RawEcho } from './icmp/raw-echo.ts';
import { Input } from './input.ts';
import { NdpModule } from './ndp.ts';
import {
  type AddressMap,
  ENDPOINT_BYTES,
  type ForwardLookup,
  type GuestLink,
  type GuestServices,
  type HostSockets,
  KIND_PING,
  KIND_TCP,
  KIND_UDP,
  type LoopbackBypass,
  type NameServer,
} from './ports.ts';
import { RoomQueue } from './room-queue.ts';
import { TcpModule } from './tcp/module.ts';
import { TftpServer } from './tftp/server.ts';
import { UdpModule } from './udp/module.ts';

/** Frames taken from the link in one `receive`. */
const FRAMES_PER_RECEIVE = 4096;
/** Reads of the link in one turn, so that a guest which sends without pause does not keep the host's side waiting. */
const RECEIVES_PER_TURN = 4;
/** Less room than this is not worth waking a flow for: it would lay a frame or two and queue again. */
const WORTHWHILE_ROOM_BYTES = 128 * 1024;

/** A forwarded connection retries its SYN after 1 s, which then finds the answer. */
const ASK_INTERVAL_MS = 900;

export interface StackOptions {
  readonly arena: Arena;
  readonly config: StackConfig;
  readonly link: GuestLink;
  readonly sockets: HostSockets;
  readonly map: AddressMap;
  readonly forwards: ForwardLookup;
  readonly clock: Clock;
  readonly log: Logger;
  /** Eight random 32-bit words: keys of the flow hash and of the ISN generator. */
  readonly secret: Uint32Array;
  /** Echo requests by raw socket, where ping sockets are refused. */
  readonly rawEcho?: RawEcho | undefined;
  readonly flowCapacity?: number;
  /** Namespace mode: takes what the host's loopback sends to forwarded ports. */
  readonly bypass?: LoopbackBypass | undefined;
  /** What is behind addresses of the guest's network other than hosts, and its TFTP server. */
  readonly services?: GuestServices | undefined;
  /** Undefined: queries go to the host's resolver as any other datagram. */
  readonly nameServer?: NameServer | undefined;
}

export class NetworkStack {
  readonly counters = new Counters();
  readonly flows: FlowTable;
  private readonly ctx: StackContext;
  private readonly clock: Clock;
  private readonly timers: TimerWheel;
  private readonly tcp: TcpModule;
  private readonly udp: UdpModule;
  private readonly echo: EchoModule;
  private readonly tftp: TftpServer | undefined;
  private readonly arp: ArpModule;
  private readonly ndp: NdpModule;
  private readonly reassembly: Reassembler;
  private readonly input: Input;
  private readonly frames = new Int32Array(FRAMES_PER_RECEIVE * 2);
  /** Modules by FLOW_… kind. */
  private readonly owners: (FlowModule | undefined)[];
  private nextAskMs = Number.NEGATIVE_INFINITY;
  /** When the flows of a guest that has left end; Infinity: it is there, or they are kept. */
  private graceEndMs = Number.POSITIVE_INFINITY;
  private inTurn = false;
  private linkHasMore = false;
  private timer: NodeJS.Timeout | undefined;
  private timerDueMs = Number.POSITIVE_INFINITY;
  private again: NodeJS.Immediate | undefined;
  private closed = false;
  private readonly fireTimer = (index: number): void => this.onFlowTimer(index);
  private readonly releaseFlow = (index: number): void => this.release(index);

  constructor(options: StackOptions) {
    const { arena, config, link, sockets, map, forwards, clock, log, secret } = options;
    const capacity = options.flowCapacity ?? DEFAULT_FLOW_CAPACITY;
    this.clock = clock;
    this.flows = new FlowTable(capacity, [secret[0]!, secret[1]!]);
    this.timers = new TimerWheel(capacity, clock.nowMs(), this.flows.columns);
    this.ctx = {
      arena,
      view: arena.view,
      config,
      link,
      sockets,
      map,
      forwards,
      bypass: options.bypass,
      services: options.services,
      flows: this.flows,
      timers: this.timers,
      roomQueue: new RoomQueue(this.flows),
      guest: new GuestState(config),
      counters: this.counters,
      log,
      nowMs: clock.nowMs(),
      endpoint: arena.allocate(ENDPOINT_BYTES),
      secret: secret.slice(4, 8),
    };
    this.ctx.guest.onOther = () => this.dropFlows('another guest has come');
    const errors = new IcmpErrorSender(this.ctx);
    this.tcp = new TcpModule(this.ctx);
    this.udp = new UdpModule(this.ctx, errors);
    this.echo = new EchoModule(this.ctx, errors, options.rawEcho);
    this.tftp = options.services?.openFile === undefined ? undefined : new TftpServer(this.ctx);
    this.arp = new ArpModule(this.ctx);
    this.ndp = new NdpModule(this.ctx);
    this.reassembly = new Reassembler(this.ctx, errors, () => {
      this.tcp.endInput();
      this.udp.endInput();
    });
    this.owners = [];
    this.owners[FLOW_TCP] = this.tcp;
    this.owners[FLOW_UDP] = this.udp;
    this.owners[FLOW_PING] = this.echo;
    this.owners[FLOW_TFTP] = this.tftp;
    this.input = new Input(this.ctx, {
      arp: this.arp,
      ndp: this.ndp,
      dhcp: new DhcpModule(this.ctx),
      dhcpv6: new Dhcpv6Module(this.ctx),
      echo: this.echo,
      tcp: this.tcp,
      udp: this.udp,
      tftp: this.tftp,
      dns: options.nameServer === undefined ? undefined : new DnsModule(this.ctx, options.nameServer),
      reassembly: this.reassembly,
    });
  }

  /** The link has frames. Ends with the link idle, or with a further turn asked for. */
  onLinkReadable(): void {
    this.enterTurn();
    const { ctx, frames, input } = this;
    for (let round = 0; round < RECEIVES_PER_TURN; round++) {
      const count = ctx.link.receive(frames);
      if (count <= 0) {
        this.linkHasMore = false;
        return;
      }
      for (let i = 0; i < count; i++) input.frame(frames[2 * i]!, frames[2 * i + 1]!);
      // The next read overwrites these frames' bytes.
      input.endBatch();
    }
    this.linkHasMore = true;
  }

  /** The link's transport takes data again. */
  onLinkRoom(): void {
    this.enterTurn();
  }

  onGuestConnected(): void {
    this.enterTurn();
    this.graceEndMs = Number.POSITIVE_INFINITY;
    this.ndp.onGuestConnected();
    // What was lost with the link is sent again now, not when its timers are due.
    this.tcp.onGuestBack();
    this.endTurn();
  }

  /**
   * The guest is gone; its flows stay for a while, so that a guest which comes back finds them. The link may
   * say so from inside `receive` or `flush`, in the middle of a turn, so the turn is not ended here.
   * @param isSure - false: it has only been silent for long, as a guest is that was stopped; its flows are left to their own timers
   */
  onGuestGone(isSure = true): void {
    this.enterTurn();
    this.linkHasMore = false;
    this.ctx.guest.noteGone();
    if (isSure) this.graceEndMs = this.ctx.nowMs + (this.ctx.config.reconnectGraceMs ?? Number.POSITIVE_INFINITY);
    this.tcp.onGuestGone();
    this.runAgain();
  }

  /** Asks the guest for a sign of life: any frame of it is one. */
  probeGuest(): void {
    this.enterTurn();
    if (!this.ctx.link.connected) return;
    this.arp.askGuest();
    this.ndp.askGuest();
    this.endTurn();
  }

  /** An event of a flow's host socket. */
  onFlowEvent(kind: number, index: number, events: number): void {
    this.enterTurn();
    if (!this.flows.isLive(index)) return;
    switch (kind) {
      case KIND_TCP:
        this.tcp.onHostEvent(index, events);
        return;
      case KIND_UDP:
        this.udp.onHostEvent(index, events);
        return;
      case KIND_PING:
        this.echo.onHostEvent(index, events);
    }
  }

  /**
   * What a flow has asked the services for.
   * @param fd - becomes the stack's; or -errno
   */
  onServiceAnswer(index: number, generation: number, fd: number): void {
    this.enterTurn();
    const { flows, ctx } = this;
    if (!flows.isLive(index) || flows.generation[index] !== generation) {
      // The guest has given up meanwhile.
      if (fd >= 0) ctx.sockets.close(fd);
    } else if (flows.kind[index] === FLOW_TFTP) {
      this.tftp?.onFile(index, fd);
    } else {
      this.tcp.onServiceConnection(index, fd);
    }
  }

  /** A listening TCP socket has connections. */
  onTcpListener(index: number): void {
    this.enterTurn();
    this.tcp.onAcceptable(index);
  }

  /** A forwarded UDP port has datagrams. */
  onUdpListener(index: number): void {
    this.enterTurn();
    this.udp.onReadable(index);
  }

  /** A forwarded port is about to be closed. UDP flows that came by it end; TCP connections go on. */
  onForwardRemoved(listener: number): void {
    this.enterTurn();
    this.udp.onListenerRemoved(listener);
  }

  /** What is known of a flow, for people and programs that ask; undefined when the entry is not in use. Not for the data path. */
  describeFlow(index: number): FlowDescription | undefined {
    const { flows, ctx } = this;
    if (!flows.isLive(index)) return undefined;
    const description = createFlowDescription(ctx, index, this.clock.nowMs());
    this.owners[flows.kind[index]!]!.describe(index, description);
    return description;
  }

  /** What the guest is told. */
  get config(): StackConfig {
    return this.ctx.config;
  }

  /** What the stack has learned about its guest. */
  get guest(): GuestState {
    return this.ctx.guest;
  }

  /** Has the stack send and receive by another link to the same guest, of the same properties: between turns. */
  useLink(link: GuestLink): void {
    this.ctx.link = link;
  }

  /** Whether a guest is attached. */
  get isGuestConnected(): boolean {
    return this.ctx.link.connected;
  }

  /** The stack's clock, in which flows and leases have their times: monotonic milliseconds. */
  nowMs(): number {
    return this.clock.nowMs();
  }

  /** Ends the turn; the poller calls it after each batch of events. */
  endTurn(): void {
    if (this.closed) return;
    this.enterTurn();
    const { ctx } = this;
    if (ctx.nowMs >= this.timers.nextDueMs()) this.timers.advance(ctx.nowMs, this.fireTimer);
    if (ctx.nowMs >= this.ndp.nextDueMs()) this.ndp.advance(ctx.nowMs);
    if (this.reassembly.pendingCount > 0) this.reassembly.expire(ctx.nowMs);
    if (ctx.nowMs >= this.graceEndMs) this.dropFlows('the guest has not come back');
    if (!ctx.guest.isMacKnown && this.flows.count > 0) this.askForGuest();
    this.tcp.endTurn();
    this.udp.endTurn();
    ctx.link.flush();
    this.serveRoomQueue();
    if (this.flows.hasRetired) this.flows.sweep(this.releaseFlow);
    this.inTurn = false;
    this.armTimer();
    if (this.linkHasMore || this.hasWorkForRoom()) this.runAgain();
  }

  /** Ends every flow and stops all timers. The link and the listeners are the owner's to close. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.timer);
    clearImmediate(this.again);
    while (this.ctx.roomQueue.take() >= 0);
    for (let index = 0; index < this.flows.bound; index++) this.flows.retire(index);
    this.flows.sweep(this.releaseFlow);
    this.tcp.close();
  }

  private enterTurn(): void {
    if (this.inTurn) return;
    this.inTurn = true;
    this.ctx.nowMs = this.clock.nowMs();
    this.flows.nowMs = this.ctx.nowMs;
  }

  /** Asks a guest that has not sent a frame yet for its MAC, so that what the host wants of it can be addressed. */
  private askForGuest(): void {
    const { ctx } = this;
    if (!ctx.link.connected || ctx.nowMs < this.nextAskMs) return;
    this.nextAskMs = ctx.nowMs + ASK_INTERVAL_MS;
    this.arp.askGuest();
    this.ndp.askGuest();
  }

  /** Lets waiting flows go on, each once: one that queues again has had its share of this turn. */
  private serveRoomQueue(): void {
    const { ctx, flows } = this;
    const { roomQueue, link } = ctx;
    if (roomQueue.isEmpty) return;
    let served = false;
    for (let left = flows.count; left > 0 && link.roomBytes() >= WORTHWHILE_ROOM_BYTES; left--) {
      const index = roomQueue.take();
      if (index < 0) break;
      served = true;
      if (flows.isLive(index)) this.owners[flows.kind[index]!]!.onRoom(index);
    }
    if (!served) return;
    this.tcp.endTurn();
    this.udp.endTurn();
    link.flush();
  }

  private hasWorkForRoom(): boolean {
    const { roomQueue, link } = this.ctx;
    return !roomQueue.isEmpty && link.roomBytes() >= WORTHWHILE_ROOM_BYTES;
  }

  /** Asks for a turn of which no event tells: the poller is edge-triggered, and what is left over is known only here. */
  private runAgain(): void {
    if (this.again !== undefined || this.closed) return;
    this.again = setImmediate(() => {
      this.again = undefined;
      if (this.linkHasMore) this.onLinkReadable();
      this.endTurn();
    });
  }

  /** Ends every flow: their remotes see that the guest is not there any more. */
  private dropFlows(reason: string): void {
    const { flows, ctx } = this;
    this.graceEndMs = Number.POSITIVE_INFINITY;
    if (flows.count > 0) ctx.log.info(`${reason}: ${flows.count} flows end`);
    for (let index = 0; index < flows.bound; index++) {
      if (!flows.isLive(index)) continue;
      if (flows.kind[index] === FLOW_TCP) this.tcp.abandon(index);
      else flows.retire(index);
    }
  }

  private onFlowTimer(index: number): void {
    const { flows } = this;
    if (flows.isLive(index)) this.owners[flows.kind[index]!]!.onTimer(index);
  }

  private release(index: number): void {
    const { flows, timers, ctx } = this;
    this.owners[flows.kind[index]!]!.onRelease(index);
    timers.cancel(index);
    const fd = flows.fd[index]!;
    if (fd >= 0) ctx.sockets.close(fd);
  }

  private armTimer(): void {
    const { timers, ndp, reassembly, graceEndMs } = this;
    const due = Math.min(timers.nextDueMs(), ndp.nextDueMs(), reassembly.nextDueMs(), graceEndMs);
    if (due >= this.timerDueMs) return;
    clearTimeout(this.timer);
    this.timerDueMs = due;
    this.timer = setTimeout(
      () => {
        this.timerDueMs = Number.POSITIVE_INFINITY;
        this.endTurn();
      },
      Math.max(0, Math.min(due - this.clock.nowMs(), 2_000_000_000)),
    );
  }
}
