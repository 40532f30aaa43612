//! The routes of edits, of the queue, and of what an editor asks for while it draws.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::decky_mutation::Trigger;
use domain::revision::Revision;
use domain::topology::allocate::SubnetBase;
use domain::topology::draft::Draft;
use domain::topology::layout::{Area, Layout, Point};
use domain::topology::mutation::draft::MutationDraft;
use domain::topology::mutation::state::MutationState;
use proto::difference::changes;
use proto::line::format_time;
use proto::queued::Queued;
use proto::rest::mutation::{
    ApplyRequest, DeckyPlace, EditAnswer, EditOutcome, EditRequest, FreeAddress, FreeSubnet,
    LanPlace, LayoutShape, MutationQuery, MutationShape, NowRequest, SubnetQuery,
};
use proto::rest::{FindingShape, Page};

use super::auth::Caller;
use super::events::MOST;
use super::extract::{Body, BodyOrDefault, Malformed, Params};
use super::precondition::IfMatch;
use super::problem::ApiError;
use super::topologies::{Meant, unchanged};
use super::{Api, shapes};
use crate::db::queue::{MutationId, MutationPage, MutationRow};
use crate::mutate::mutation_id;
use crate::topology::{Change, Drawn, EditOrder, Edited, Mode, Outcome};

/// Mutations in a page when nobody says.
const USUAL: u32 = 50;

type Answered = Result<(StatusCode, Json<EditAnswer>), ApiError>;

/// `POST /topologies/{topology}/mutations`
pub(super) async fn edit(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    caller: Caller,
    condition: IfMatch,
    Body(request): Body<EditRequest>,
) -> Answered {
    let on = meant(&api, topology, &condition, request.expected_revision).await?;
    let draft = MutationDraft::from(request);
    let order = order(&on, Change::Ops(&draft), &caller);
    answer(on.told(api.topologies.editor.edit(&order).await)?)
}

/// `POST /topologies/{topology}/apply`
pub(super) async fn apply(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    caller: Caller,
    condition: IfMatch,
    Body(request): Body<ApplyRequest>,
) -> Answered {
    let on = meant(&api, topology, &condition, request.expected_revision).await?;
    let draft = Draft::from(request.topology);
    let mode = if request.dry_run {
        Mode::Plan
    } else {
        Mode::Do
    };
    let order = EditOrder {
        mode,
        ..order(&on, Change::File(&draft), &caller)
    };
    answer(on.told(api.topologies.editor.edit(&order).await)?)
}

/// `POST /topologies/{topology}/mutate`
pub(super) async fn mutate_all(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    caller: Caller,
    condition: IfMatch,
    BodyOrDefault(request): BodyOrDefault<NowRequest>,
) -> Answered {
    let on = meant(&api, topology, &condition, request.expected_revision).await?;
    let order = order(&on, Change::Deckies, &caller);
    answer(on.told(api.topologies.editor.edit(&order).await)?)
}

/// `POST /topologies/{topology}/deckies/{decky}/mutate`
pub(super) async fn mutate_decky(
    State(api): State<Arc<Api>>,
    Path((topology, decky)): Path<(String, String)>,
    caller: Caller,
    condition: IfMatch,
    BodyOrDefault(request): BodyOrDefault<NowRequest>,
) -> Answered {
    let on = meant(&api, topology, &condition, request.expected_revision).await?;
    let order = order(&on, Change::Decky(&decky), &caller);
    answer(on.told(api.topologies.editor.edit(&order).await)?)
}

/// `GET /topologies/{topology}/mutations`: newest first.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    Params(query): Params<MutationQuery>,
) -> Result<Json<Page<MutationShape>>, ApiError> {
    let malformed = |path, message: String| ApiError::Malformed(Malformed::value(path, message));
    let limit = query.limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        let message = format!("{limit} is not between 1 and {MOST}");
        return Err(malformed("limit", message));
    }
    let before = match query.cursor.as_deref().map(str::parse) {
        None => None,
        Some(Ok(before)) => Some(before),
        Some(Err(_)) => return Err(malformed("cursor", "it is none of ours".to_owned())),
    };
    let state = match query.state.as_deref().map(str::parse::<MutationState>) {
        None => None,
        Some(Ok(state)) => Some(state),
        Some(Err(error)) => return Err(malformed("state", error.to_string())),
    };
    let id = api.topologies.find(&topology).await?.topology.id;
    let page = MutationPage { state, before };
    // One more than asked for tells whether there is a next page.
    let mut rows = api.store.mutations(id, page, limit + 1).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > wanted;
    rows.truncate(wanted);
    Ok(Json(Page {
        next: rows
            .last()
            .filter(|_| more)
            .map(|row| row.sequence.to_string()),
        items: rows.iter().map(shape).collect(),
        total: api.store.count_mutations(id, state).await?,
    }))
}

/// `GET /mutations/{mutation}`
pub(super) async fn inspect(
    State(api): State<Arc<Api>>,
    Path(mutation): Path<String>,
) -> Result<Json<MutationShape>, ApiError> {
    let row = match mutation_id(&mutation) {
        Some(id) => api.store.mutation(id).await?,
        None => None,
    };
    match row {
        Some(row) => Ok(Json(shape(&row))),
        None => Err(unknown(mutation)),
    }
}

/// `POST /mutations/{mutation}/cancel`
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    Path(mutation): Path<String>,
    caller: Caller,
) -> Result<Json<MutationShape>, ApiError> {
    let id = id(mutation)?;
    let row = api.topologies.editor.cancel(id, caller.actor()).await?;
    Ok(Json(shape(&row)))
}

/// `POST /mutations/{mutation}/revert`
pub(super) async fn revert(
    State(api): State<Arc<Api>>,
    Path(mutation): Path<String>,
    caller: Caller,
    BodyOrDefault(request): BodyOrDefault<NowRequest>,
) -> Answered {
    let id = id(mutation)?;
    let expected = request.expected_revision.map(Revision::new);
    let editor = &api.topologies.editor;
    answer(editor.revert(id, expected, caller.actor()).await?)
}

/// `GET /topologies/{topology}/layout`
pub(super) async fn layout(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
) -> Result<Json<LayoutShape>, ApiError> {
    Ok(Json(layout_shape(&api.topologies.layout(&topology).await?)))
}

/// `PUT /topologies/{topology}/layout`
pub(super) async fn put_layout(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    Body(wanted): Body<LayoutShape>,
) -> Result<Json<LayoutShape>, ApiError> {
    let drawn = Drawn {
        lans: wanted
            .lans
            .into_iter()
            .map(|place| {
                let area = Area {
                    at: Point {
                        x: place.x,
                        y: place.y,
                    },
                    width: place.width,
                    height: place.height,
                };
                (place.lan, area)
            })
            .collect(),
        deckies: wanted
            .deckies
            .into_iter()
            .map(|place| {
                let at = Point {
                    x: place.x,
                    y: place.y,
                };
                (place.decky, at)
            })
            .collect(),
    };
    let layout = api.topologies.draw(&topology, &drawn).await?;
    Ok(Json(layout_shape(&layout)))
}

/// `GET /topologies/{topology}/next-subnet`
pub(super) async fn next_subnet(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    Params(query): Params<SubnetQuery>,
) -> Result<Json<FreeSubnet>, ApiError> {
    let base = match query.base.as_deref().map(str::parse::<SubnetBase>) {
        None => SubnetBase::default(),
        Some(Ok(base)) => base,
        Some(Err(error)) => return Err(ApiError::Malformed(Malformed::value("base", error))),
    };
    let subnet = api.topologies.next_subnet(&topology, base).await?;
    Ok(Json(FreeSubnet {
        subnet: subnet.to_string(),
    }))
}

/// `GET /topologies/{topology}/lans/{lan}/next-address`
pub(super) async fn next_address(
    State(api): State<Arc<Api>>,
    Path((topology, lan)): Path<(String, String)>,
) -> Result<Json<FreeAddress>, ApiError> {
    let (subnet, address) = api.topologies.next_address(&topology, &lan).await?;
    Ok(Json(FreeAddress {
        subnet: subnet.to_string(),
        address: address.to_string(),
    }))
}

/// The topology, and the revision that an edit is made on: what the body says, or else the condition.
async fn meant(
    api: &Api,
    topology: String,
    condition: &IfMatch,
    expected: Option<u64>,
) -> Result<Meant, ApiError> {
    let meant = unchanged(api, topology, condition).await?;
    Ok(match expected {
        Some(expected) => Meant::at(meant.reference, Revision::new(expected)),
        None => meant,
    })
}

fn order<'a>(on: &'a Meant, change: Change<'a>, caller: &Caller) -> EditOrder<'a> {
    EditOrder {
        topology: &on.reference,
        change,
        expected: on.expected,
        mode: Mode::Do,
        cause: Trigger::Operator,
        actor: caller.actor(),
    }
}

fn answer(edited: Edited) -> Answered {
    let Edited {
        outcome,
        revision,
        difference,
        findings,
    } = edited;
    let (status, outcome, mutation) = match outcome {
        Outcome::Applied => (StatusCode::OK, EditOutcome::Applied, None),
        Outcome::Queued(row) => (StatusCode::ACCEPTED, EditOutcome::Queued, Some(shape(&row))),
        Outcome::Unchanged => (StatusCode::OK, EditOutcome::Unchanged, None),
        Outcome::Planned => (StatusCode::OK, EditOutcome::Planned, None),
    };
    let answer = EditAnswer {
        outcome,
        revision: revision.get(),
        mutation,
        changes: changes(&difference),
        words: difference.to_string(),
        findings: findings.iter().map(FindingShape::from).collect(),
    };
    Ok((status, Json(answer)))
}

fn id(mutation: String) -> Result<MutationId, ApiError> {
    mutation_id(&mutation).ok_or_else(|| unknown(mutation))
}

fn unknown(key: String) -> ApiError {
    ApiError::Unknown {
        noun: "mutation",
        key,
    }
}

/// A mutation as it is shown.
pub(super) fn shape(row: &MutationRow) -> MutationShape {
    // Of another release at worst: then there are no details to show.
    let (changes, words) = match Queued::from_json(&row.payload) {
        Ok(queued) => (queued.changes, queued.words),
        Err(_) => (Vec::new(), String::new()),
    };
    let findings: Vec<FindingShape> = serde_json::from_str(&row.reason).unwrap_or_default();
    let reason = match findings.first() {
        Some(first) => first.message.clone(),
        None => row.reason.clone(),
    };
    MutationShape {
        id: row.id.to_string(),
        topology: row.topology.to_string(),
        sequence: row.sequence,
        op: row.op.clone(),
        state: row.state.as_str().to_owned(),
        cause: row.cause.clone(),
        actor: shapes::actor(&row.actor),
        enqueued_at: format_time(row.enqueued_at),
        changed_at: format_time(row.changed_at),
        revision: row.revision.map(Revision::get),
        generation: row.fence.map(|fence| fence.generation.get()),
        reason,
        findings,
        changes,
        words,
    }
}

fn layout_shape(layout: &Layout) -> LayoutShape {
    let lans = layout.lans.iter().map(|(id, area)| LanPlace {
        lan: id.to_string(),
        x: area.at.x,
        y: area.at.y,
        width: area.width,
        height: area.height,
    });
    let deckies = layout.deckies.iter().map(|(id, at)| DeckyPlace {
        decky: id.to_string(),
        x: at.x,
        y: at.y,
    });
    LayoutShape {
        lans: lans.collect(),
        deckies: deckies.collect(),
    }
}
