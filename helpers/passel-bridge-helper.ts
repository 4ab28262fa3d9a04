import { BRIDGE_HELPER_PROGRAM, runBridgeHelperCommand } from '../src/cli/bridge-helper/bridge-helper-command.ts';
import { runMain } from '../src/cli/main.ts';

runMain(BRIDGE_HELPER_PROGRAM, runBridgeHelperCommand);
