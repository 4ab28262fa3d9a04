import { FD_BROKER_PROGRAM, runFdBrokerCommand } from '../src/cli/fd-broker/fd-broker-command.ts';
import { runMain } from '../src/cli/main.ts';

runMain(FD_BROKER_PROGRAM, runFdBrokerCommand);
