import { runMain } from '../src/cli/main.ts';
import { PASST_PROGRAM, runPasstCommand } from '../src/cli/passt-command.ts';

runMain(PASST_PROGRAM, runPasstCommand);
