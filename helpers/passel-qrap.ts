import { runMain } from '../src/cli/main.ts';
import { QRAP_PROGRAM, runQrapCommand } from '../src/cli/qrap/qrap-command.ts';

runMain(QRAP_PROGRAM, runQrapCommand);
