import { runFrontDoor } from '../src/cli/front-door.ts';
import { runMain } from '../src/cli/main.ts';

runMain('passel', runFrontDoor);
