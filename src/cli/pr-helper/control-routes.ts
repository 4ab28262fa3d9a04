/**
 * The requests of the helper's control socket. Version 1:
 *
 *     GET /v1/status
 *     GET /v1/clients
 *     GET /v1/requests
 *     GET /v1/reservations
 *
 * All of them look; nothing can be changed.
 */
import { type AnswerRequest, checkNames, createAnswerer, type Handler, type Routes } from '../control/requests.ts';
import { type PrViewSource, viewClients, viewPrStatus, viewRequests, viewReservations } from './control-view.ts';

/** At most so many rows of a list are shown; `total` says how many there are. */
const ROWS_MAX = 1000;

const ROUTES: Routes<PrViewSource> = {
  '/v1/status': {
    GET(source, query) {
      checkNames('parameter', query.keys(), []);
      return { status: 200, body: viewPrStatus(source) };
    },
  },
  '/v1/clients': { GET: list('clients', viewClients) },
  '/v1/requests': { GET: list('requests', viewRequests) },
  '/v1/reservations': { GET: list('reservations', viewReservations) },
};

function list(name: string, view: (source: PrViewSource) => readonly unknown[]): Handler<PrViewSource> {
  return (source, query) => {
    checkNames('parameter', query.keys(), []);
    const rows = view(source);
    return { status: 200, body: { [name]: rows.slice(0, ROWS_MAX), total: rows.length } };
  };
}

/** How a reservation helper answers. */
export function createPrAnswerer(source: PrViewSource): AnswerRequest {
  return createAnswerer(source, ROUTES);
}
