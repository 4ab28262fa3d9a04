/** What the fronts of executables need to know of their options, by executable. */
import { formatFrontTable } from '../src/cli/options/front-table.ts';
import { PASST_OPTIONS } from '../src/cli/options/passt-options.ts';
import { PASTA_OPTIONS } from '../src/cli/options/pasta-options.ts';

export const FRONT_TABLES: Readonly<Record<string, string>> = {
  'passel-passt': formatFrontTable(PASST_OPTIONS, 'none'),
  'passel-pasta': formatFrontTable(PASTA_OPTIONS, 'namespaces'),
};
