/** Where clients of the broker find it. */
import { value } from './definition.ts';
import { parsePath } from './values.ts';

/** @param group - heading in the help text */
export const brokerSocketOption = (group: string) =>
  value({
    group,
    valueName: 'PATH',
    help: 'Where the broker is asked, also for taps that this process could make itself',
    defaultText: 'PASSEL_BROKER of the environment, else /run/passel/fd-broker.sock',
    parse: parsePath,
  });
