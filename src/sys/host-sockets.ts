/** The addon as the {@link HostSockets} that the stack asks for. */
import type { Arena } from '../base/arena.ts';
import type { HostSockets } from '../stack/ports.ts';
import { EPOLL_ADD, EPOLL_DELETE, EPOLL_MODIFY, type NativeAddon } from './native-addon.ts';

/**
 * Binds `arena` to the addon of this thread and gives its functions as they are: no wrapper stands between the stack and a system call.
 * One arena per thread: a second call with another arena moves every user of the addon on this thread to it.
 * @param epollFd - the set that `watch` registers with (a {@link Poller}'s `fd`); stays the caller's
 */
export function createHostSockets(native: NativeAddon, arena: Arena, epollFd: number): HostSockets {
  const status = native.bindArena(arena.buffer);
  if (status < 0) throw new TypeError(`the arena cannot be bound: errno ${-status}`);
  return {
    open: native.open,
    bind: native.bind,
    connect: native.connect,
    listen: native.listen,
    accept: native.accept,
    getName: native.getName,
    getPeer: native.getPeer,
    shutdown: native.shutdown,
    close: native.close,
    takeError: native.takeError,
    getOption: native.getOption,
    setOption: native.setOption,
    setOptionString: native.setOptionString,
    getTcpInfo: native.getTcpInfo,
    receive: native.receive,
    send: native.send,
    sendBuffer: native.sendBuffer,
    sendSegments: native.sendSegments,
    peekSegments: native.peekSegments,
    discard: native.discard,
    receiveDatagrams: native.receiveDatagrams,
    receiveUnsummed: native.receiveUnsummed,
    receiveSplitDatagrams: native.receiveSplitDatagrams,
    sendDatagrams: native.sendDatagrams,
    sendDatagramsTo: native.sendDatagramsTo,
    sendEqualDatagrams: native.sendEqualDatagrams,
    sendTo: native.sendTo,
    receiveError: native.receiveError,
    sum: native.sum,
    watch: (fd, events, kind, index) => native.epollControl(epollFd, EPOLL_ADD, fd, events, kind, index),
    rewatch: (fd, events, kind, index) => native.epollControl(epollFd, EPOLL_MODIFY, fd, events, kind, index),
    unwatch: (fd) => native.epollControl(epollFd, EPOLL_DELETE, fd, 0, 0, 0),
  };
}
