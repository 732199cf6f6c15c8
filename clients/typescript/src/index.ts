/** Client of CTMS, a contact management service. */
export { type BatchItem, type BatchItemResult, type BatchOptions } from "./batches.js";
export * from "./client.js";
export {
    AuthenticationError,
    ConflictError,
    CtmsError,
    type ErrorBody,
    ForbiddenError,
    GoneError,
    InvalidRequestError,
    InvalidResponseError,
    NotFoundError,
    PreconditionFailedError,
    type Problem,
    ResponseError,
    ServerError,
    TooManyRequestsError,
    TransportError,
} from "./errors.js";
export { type FeedPage, type Page, Paged, type SearchPage, type Start } from "./paging.js";
export { type Retries } from "./retries.js";
export type { components, operations, paths } from "./schema.js";
