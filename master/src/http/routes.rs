//! The one table of routes: method, path, who may, what answers, and what the OpenAPI document says
//! of it. A route that is not here does not exist.

use std::sync::{Arc, LazyLock};

use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use domain::role::Role;
use proto::rest::mutation::{
    ApplyRequest, EditAnswer, EditRequest, FreeAddress, FreeSubnet, LayoutShape, MutationQuery,
    MutationShape, NowRequest, SubnetQuery,
};
use proto::rest::{
    ApiTokenCreated, ApiTokenShape, ApiTokensQuery, AuditQuery, AuditShape, ChangePassword,
    ChangeUser, CreateApiToken, CreateTopology, CreateUser, DeployRequest, EnrollRequest,
    Enrollment, EventQuery, EventShape, Findings, HostShape, HostsQuery, LoginRequest, Me,
    RemoveHostQuery, SessionOpened, SessionOwnerQuery, SessionShape, SessionsQuery,
    StatusChangeShape, SystemStatus, TeardownRequest, TokenShape, TokensQuery, TopologiesQuery,
    TopologyFile, TopologyShape, TopologyState, UserChanged, UserShape, UsersQuery,
};

use super::auth::Access;
use super::document::{self, Doc};
use super::{
    Api, api_tokens, events, hosts, mutations, news, session, stream, system, tokens, topologies,
    users,
};

/// One route.
pub(super) struct Route {
    /// The method.
    pub(super) method: Method,
    /// The path, as axum writes it.
    pub(super) path: &'static str,
    /// Who may.
    pub(super) access: Access,
    /// What is said of it.
    pub(super) doc: Doc,
    /// What answers.
    handler: fn(MethodFilter) -> MethodRouter<Arc<Api>>,
}

fn route(
    method: Method,
    path: &'static str,
    access: Access,
    handler: fn(MethodFilter) -> MethodRouter<Arc<Api>>,
) -> Route {
    Route {
        method,
        path,
        access,
        doc: Doc::default(),
        handler,
    }
}

impl Route {
    /// What answers, under its method alone.
    pub(super) fn service(&self) -> MethodRouter<Arc<Api>> {
        let method = MethodFilter::try_from(self.method.clone());
        (self.handler)(method.expect("the table holds none but the methods of HTTP"))
    }
}

const OPEN: Access = Access::Open;
const KNOWN: Access = Access::Known;
const VIEWER: Access = Access::Needs(Role::Viewer);
const OPERATOR: Access = Access::Needs(Role::Operator);
const ADMIN: Access = Access::Needs(Role::Admin);

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

/// Every route. The next one goes beside those of its noun, with its sentence, what it takes, what it
/// gives, and the refusals that are its own; those that follow from its path, its body, its query and
/// its role are added by `document`.
#[rustfmt::skip]
pub(super) static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| vec![
    route(GET, "/healthz", OPEN, |method| on(method, system::healthz))
        .says("Say whether the master serves.").gives_other("text/plain"),
    route(GET, "/metrics", VIEWER, |method| on(method, system::metrics))
        .says("Give the metrics, in the text format of Prometheus.").gives_other("text/plain"),
    route(GET, "/api/openapi.json", VIEWER, |method| on(method, document::openapi))
        .says("Give this document.").gives_any(),
    route(GET, "/api/v1/status", VIEWER, |method| on(method, system::status))
        .says("Give the overall state.").gives::<SystemStatus>(200),
    route(GET, "/api/v1/audit", ADMIN, |method| on(method, system::audit))
        .says("List the audit log, newest first.").asks::<AuditQuery>().lists::<AuditShape>(),

    route(POST, "/api/v1/login", OPEN, |method| on(method, session::login))
        .says("Open a session with a name and a password.").takes::<LoginRequest>().gives::<SessionOpened>(200).refuses(&[401, 429]),
    route(POST, "/api/v1/logout", KNOWN, |method| on(method, session::logout))
        .says("End the session that asks.").gives_nothing(),
    route(GET, "/api/v1/me", KNOWN, |method| on(method, session::me))
        .says("Say who asks.").gives::<Me>(200),
    route(POST, "/api/v1/me/password", KNOWN, |method| on(method, session::password))
        .says("Change one's own password, which ends every session and opens a new one.").takes::<ChangePassword>().gives::<SessionOpened>(200).refuses(&[404, 429]),
    route(GET, "/api/v1/sessions", VIEWER, |method| on(method, session::list))
        .says("List open sessions, newest first: one's own, or for an admin those of a user.").asks::<SessionsQuery>().lists::<SessionShape>().refuses(&[404, 409]),
    route(DELETE, "/api/v1/sessions", VIEWER, |method| on(method, session::end_all))
        .says("End every session of oneself, or for an admin of a user.").asks::<SessionOwnerQuery>().gives_nothing().refuses(&[404, 409]),
    route(DELETE, "/api/v1/sessions/{session}", VIEWER, |method| on(method, session::end))
        .says("End a session of oneself, or for an admin of a user.").asks::<SessionOwnerQuery>().gives_nothing().refuses(&[409]),

    route(GET, "/api/v1/users", ADMIN, |method| on(method, users::list))
        .says("List users, by name.").asks::<UsersQuery>().lists::<UserShape>(),
    route(POST, "/api/v1/users", ADMIN, |method| on(method, users::create))
        .says("Make a user, with a password that must be changed.").takes::<CreateUser>().gives::<UserChanged>(201),
    route(GET, "/api/v1/users/{user}", ADMIN, |method| on(method, users::inspect))
        .says("Show a user.").gives::<UserShape>(200),
    route(PATCH, "/api/v1/users/{user}", ADMIN, |method| on(method, users::change))
        .says("Change the role of a user, or give it another password.").takes::<ChangeUser>().gives::<UserChanged>(200).refuses(&[409]),
    route(DELETE, "/api/v1/users/{user}", ADMIN, |method| on(method, users::remove))
        .says("Remove a user with its sessions.").gives_nothing().refuses(&[409]),

    route(GET, "/api/v1/api-tokens", ADMIN, |method| on(method, api_tokens::list))
        .says("List API tokens, newest first.").asks::<ApiTokensQuery>().lists::<ApiTokenShape>(),
    route(POST, "/api/v1/api-tokens", ADMIN, |method| on(method, api_tokens::mint))
        .says("Make an API token, which is shown once.").takes::<CreateApiToken>().gives::<ApiTokenCreated>(201),
    route(DELETE, "/api/v1/api-tokens/{token}", ADMIN, |method| on(method, api_tokens::revoke))
        .says("Revoke an API token.").gives_nothing(),

    route(GET, "/api/v1/tokens", ADMIN, |method| on(method, tokens::list))
        .says("List join tokens that can be redeemed, soonest expiry first.").asks::<TokensQuery>().lists::<TokenShape>(),
    route(POST, "/api/v1/tokens", ADMIN, |method| on(method, tokens::mint))
        .says("Make a join token for a host, which is shown once.").takes::<EnrollRequest>().gives::<Enrollment>(201),
    route(DELETE, "/api/v1/tokens/{id}", ADMIN, |method| on(method, tokens::remove))
        .says("Remove a join token.").gives_nothing(),

    route(GET, "/api/v1/hosts", VIEWER, |method| on(method, hosts::list))
        .says("List hosts, by name.").asks::<HostsQuery>().lists::<HostShape>(),
    route(GET, "/api/v1/hosts/{host}", VIEWER, |method| on(method, hosts::inspect))
        .says("Show a host.").gives::<HostShape>(200),
    route(DELETE, "/api/v1/hosts/{host}", ADMIN, |method| on(method, hosts::remove))
        .says("Remove a host.").asks::<RemoveHostQuery>().gives::<HostShape>(200).refuses(&[409]),
    route(POST, "/api/v1/hosts/{host}/cordon", OPERATOR, |method| on(method, hosts::cordon))
        .says("Give a host no new topology.").gives::<HostShape>(200),
    route(POST, "/api/v1/hosts/{host}/uncordon", OPERATOR, |method| on(method, hosts::uncordon))
        .says("Give a host topologies again.").gives::<HostShape>(200),
    route(POST, "/api/v1/hosts/{host}/drain", OPERATOR, |method| on(method, hosts::drain))
        .says("Take down what a host holds, and give it nothing new.").gives::<HostShape>(200),
    route(POST, "/api/v1/hosts/{host}/revoke", ADMIN, |method| on(method, hosts::revoke))
        .says("Let a host connect no more.").gives::<HostShape>(200),

    route(GET, "/api/v1/topologies", VIEWER, |method| on(method, topologies::list))
        .says("List topologies, newest first.").if_none_match().asks::<TopologiesQuery>().lists::<TopologyShape>().refuses(&[404]),
    route(POST, "/api/v1/topologies", OPERATOR, |method| on(method, topologies::create))
        .says("Store a topology, as pending.").takes::<CreateTopology>().gives::<TopologyState>(201),
    route(POST, "/api/v1/topologies/validate", VIEWER, |method| on(method, topologies::validate))
        .says("Say what is wrong with a topology; nothing is stored.").takes::<TopologyFile>().gives::<Findings>(200),
    route(GET, "/api/v1/topologies/{topology}", VIEWER, |method| on(method, topologies::inspect))
        .says("Show a topology and where it stands.").if_none_match().gives::<TopologyState>(200),
    route(DELETE, "/api/v1/topologies/{topology}", OPERATOR, |method| on(method, topologies::remove))
        .says("Remove a topology that no host holds.").if_match().gives_nothing().refuses(&[409]),
    route(GET, "/api/v1/topologies/{topology}/document", VIEWER, |method| on(method, topologies::document))
        .says("Give a topology as a document.").if_none_match().gives::<TopologyFile>(200),
    route(GET, "/api/v1/topologies/{topology}/hydrated", VIEWER, |method| on(method, topologies::hydrated))
        .says("Give the very bytes that a host is told.").if_none_match().gives_any(),
    route(GET, "/api/v1/topologies/{topology}/status-events", VIEWER, |method| on(method, topologies::status_events))
        .says("List the changes of a topology's status, oldest first.").lists::<StatusChangeShape>(),
    route(POST, "/api/v1/topologies/{topology}/deploy", OPERATOR, |method| on(method, topologies::deploy))
        .says("Have a host hold a topology.").if_match().may_take::<DeployRequest>().gives::<TopologyState>(202),
    route(POST, "/api/v1/topologies/{topology}/retry", OPERATOR, |method| on(method, topologies::retry))
        .says("Try the deploy of a topology again that has failed.").if_match().may_take::<DeployRequest>().gives::<TopologyState>(202),
    route(POST, "/api/v1/topologies/{topology}/teardown", OPERATOR, |method| on(method, topologies::teardown))
        .says("Have a topology taken down.").if_match().may_take::<TeardownRequest>().gives::<TopologyState>(202),

    route(POST, "/api/v1/topologies/{topology}/apply", OPERATOR, |method| on(method, mutations::apply))
        .says("Make a topology be what a file says, or only tell the difference.").if_match().takes::<ApplyRequest>().gives::<EditAnswer>(200).gives::<EditAnswer>(202),
    route(GET, "/api/v1/topologies/{topology}/mutations", VIEWER, |method| on(method, mutations::list))
        .says("List the mutations of a topology, newest first.").asks::<MutationQuery>().lists::<MutationShape>(),
    route(POST, "/api/v1/topologies/{topology}/mutations", OPERATOR, |method| on(method, mutations::edit))
        .says("Edit a topology: at once while no host holds it, through the queue while one does.").if_match().takes::<EditRequest>().gives::<EditAnswer>(200).gives::<EditAnswer>(202),
    route(POST, "/api/v1/topologies/{topology}/mutate", OPERATOR, |method| on(method, mutations::mutate_all))
        .says("Have every decky of a topology serve something else.").if_match().may_take::<NowRequest>().gives::<EditAnswer>(200).gives::<EditAnswer>(202),
    route(POST, "/api/v1/topologies/{topology}/deckies/{decky}/mutate", OPERATOR, |method| on(method, mutations::mutate_decky))
        .says("Have one decky serve something else.").if_match().may_take::<NowRequest>().gives::<EditAnswer>(200).gives::<EditAnswer>(202),
    route(GET, "/api/v1/topologies/{topology}/layout", VIEWER, |method| on(method, mutations::layout))
        .says("Say where the things of a topology are drawn.").gives::<LayoutShape>(200),
    route(PUT, "/api/v1/topologies/{topology}/layout", OPERATOR, |method| on(method, mutations::put_layout))
        .says("Draw things elsewhere; what is not named stays where it is.").takes::<LayoutShape>().gives::<LayoutShape>(200),
    route(GET, "/api/v1/topologies/{topology}/next-subnet", VIEWER, |method| on(method, mutations::next_subnet))
        .says("Propose a subnet that no LAN has.").asks::<SubnetQuery>().gives::<FreeSubnet>(200).refuses(&[409]),
    route(GET, "/api/v1/topologies/{topology}/lans/{lan}/next-address", VIEWER, |method| on(method, mutations::next_address))
        .says("Propose an address that is free in a LAN.").gives::<FreeAddress>(200).refuses(&[409]),
    route(GET, "/api/v1/topologies/{topology}/events", VIEWER, |method| on(method, news::stream))
        .says("Follow a topology, as server-sent events: a snapshot, then what changes; `Last-Event-ID` goes on from there.").gives_other("text/event-stream").refuses(&[422, 429]),

    route(GET, "/api/v1/mutations/{mutation}", VIEWER, |method| on(method, mutations::inspect))
        .says("Show a mutation.").gives::<MutationShape>(200),
    route(POST, "/api/v1/mutations/{mutation}/cancel", OPERATOR, |method| on(method, mutations::cancel))
        .says("Take a mutation back that is not committed.").gives::<MutationShape>(200),
    route(POST, "/api/v1/mutations/{mutation}/revert", OPERATOR, |method| on(method, mutations::revert))
        .says("Undo what a mutation has done, and only that.").may_take::<NowRequest>().gives::<EditAnswer>(200).gives::<EditAnswer>(202),

    route(GET, "/api/v1/events", VIEWER, |method| on(method, events::list))
        .says("List events, newest first.").asks::<EventQuery>().lists::<EventShape>().refuses(&[404]),
    route(GET, "/api/v1/events/stream", VIEWER, |method| on(method, stream::stream))
        .says("Follow events as they are stored, as server-sent events; `Last-Event-ID` goes on from there.").asks::<EventQuery>().gives_other("text/event-stream").refuses(&[404, 429]),
    route(GET, "/api/v1/events/export", VIEWER, |method| on(method, events::export))
        .says("Give events as lines of JSON, oldest first.").asks::<EventQuery>().gives_other("application/x-ndjson").refuses(&[404]),
]);
