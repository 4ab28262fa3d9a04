import { runMain } from '../src/cli/main.ts';
import { PASTA_PROGRAM, runPastaCommand } from '../src/cli/pasta-command.ts';

runMain(PASTA_PROGRAM, runPastaCommand);
