import { runMain } from '../src/cli/main.ts';
import { PR_HELPER_PROGRAM, runPrHelperCommand } from '../src/cli/pr-helper/pr-helper-command.ts';

runMain(PR_HELPER_PROGRAM, runPrHelperCommand);
