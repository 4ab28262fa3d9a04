/**
 * `passel install-links DIR`: a directory to put in front of PATH, so that libvirt, QEMU and scripts that start `passt` or `qrap` start
 * ours. Says afterwards who would find what.
 */
import { realpathSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { PasselError, printable } from '../../base/errors.ts';
import { LINKS_OPTIONS } from '../options/links-options.ts';
import { scanOptions } from '../options/scan.ts';
import { findInPath, isExecutable, listSearchPaths } from './callers.ts';
import { type DropIn, listDropIns, makeLinks } from './links.ts';

/** @returns exit status; @throws PasselError for the caller to report */
export async function runLinksCommand(argv: readonly string[]): Promise<number> {
  const given = scanOptions(LINKS_OPTIONS, argv);
  if (given.has('help')) {
    const { formatHelp } = await import('../options/help.ts');
    process.stdout.write(await formatHelp('passel install-links [OPTION]... DIR', LINKS_OPTIONS));
    return 0;
  }
  const [operand, extra] = given.operands;
  if (operand === undefined || operand === '' || extra !== undefined) {
    throw new PasselError('PASSEL_E_OPERAND', { value: extra ?? '', expected: 'one directory' });
  }
  const directory = resolve(operand);
  const dropIns = listDropIns(dirname(realpathSync(process.argv[1] ?? process.execPath)));
  if (dropIns.length === 0) {
    throw new PasselError('PASSEL_E_LINK', { value: directory, reason: 'no executables of ours are beside this one' });
  }
  makeLinks(directory, dropIns, given.has('force'));
  process.stdout.write(describeLinks(directory, dropIns));
  return 0;
}

function describeLinks(directory: string, dropIns: readonly DropIn[]): string {
  const lines = dropIns.map(({ name, target }) => `${directory}/${name} -> ${target}`);
  lines.push('', 'To find these before others:', `  export PATH=${quote(directory)}:"$PATH"`, '');
  for (const { user, folders } of listSearchPaths()) {
    lines.push(`${user}:`);
    for (const { name } of dropIns) lines.push(`  ${describeFinding(name, folders, directory)}`);
    // The first line of our executables asks env(1) for it.
    if (!folders.some((folder) => isExecutable(`${folder}/node`))) {
      lines.push(`  node is not found there: add ${dirname(process.execPath)} too`);
    }
  }
  lines.push(
    '',
    'A service gets another PATH by a drop-in: systemctl edit virtqemud, and there:',
    '  [Service]',
    `  Environment=PATH=${directory}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin`,
  );
  if (!dropIns.some(({ name }) => name === 'pasta')) {
    lines.push('podman and rootlesskit start pasta, which this version has no stand-in for.');
  }
  return `${lines.map(printable).join('\n')}\n`;
}

function describeFinding(name: string, folders: readonly string[], directory: string): string {
  const finding = findInPath(name, folders, directory);
  switch (finding.kind) {
    case 'ours':
      return `${name}: ours`;
    case 'none':
      return `${name}: not found; add ${directory}`;
    case 'other':
      return finding.oursLater
        ? `${name}: ${finding.path}, because ${directory} stands behind it`
        : `${name}: ${finding.path}; put ${directory} in front`;
  }
}

/** For a shell. */
function quote(path: string): string {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}
