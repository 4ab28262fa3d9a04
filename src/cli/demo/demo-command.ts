/** `passel demo`. */
export async function runDemoCommand(_argv: readonly string[]): Promise<number> {
  return 0;
}
