/** Which format a recording has. */
export const CAPTURE_FORMATS = ['pcap', 'pcapng'] as const;
export type CaptureFormatName = (typeof CAPTURE_FORMATS)[number];

/** The format that the name of a file asks for. */
export function captureFormatOf(path: string): CaptureFormatName {
  return /\.pcapng$/i.test(path) ? 'pcapng' : 'pcap';
}
