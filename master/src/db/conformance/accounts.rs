//! Laws of users, sessions, API tokens and idempotency keys.

use std::sync::Arc;

use domain::role::Role;
use futures_util::future::join_all;

use super::{at, operator, uuid};
use crate::db::Store;
use crate::db::accounts::{
    ApiTokenId, ApiTokenRow, Keyed, KeyedRequest, NewPassword, PasswordHash, SessionRow,
    UserChange, UserError, UserId, UserRow,
};
use crate::task;
use crate::witness::{Effect, witnessed};

fn user(number: u8, name: &str, role: Role) -> UserRow {
    UserRow {
        id: UserId::new(uuid(0xa000 + u128::from(number))),
        name: name.to_owned(),
        password_hash: PasswordHash::new(format!("$argon2id$v=19$m=19456,t=2,p=1$x${number}")),
        role,
        must_change: true,
        created_at: at(1),
        password_at: at(1),
    }
}

fn session(number: u8, user: &UserRow) -> SessionRow {
    SessionRow {
        hash: [number; 32],
        user: user.id,
        origin: "203.0.113.9".to_owned(),
        created_at: at(i64::from(number)),
        expires_at: at(100),
    }
}

fn password(user: &UserRow, hash: &str, replaces: Option<&str>) -> UserChange {
    let password = NewPassword {
        hash: PasswordHash::new(hash.to_owned()),
        replaces: replaces.map(|old| PasswordHash::new(old.to_owned())),
        must_change: false,
    };
    UserChange {
        user: user.id,
        password: Some(password),
        role: None,
        actor: operator(),
        now: at(60),
    }
}

async fn added(store: &Arc<dyn Store>, user: &UserRow) {
    store
        .insert_user(user, operator())
        .await
        .expect("a new user is stored");
}

async fn opened(store: &Arc<dyn Store>, number: u8, user: &UserRow) {
    let session = session(number, user);
    let stored = store.insert_session(&session, &user.password_hash).await;
    assert!(stored.expect("stored"), "the password is that one");
}

pub(crate) async fn a_user_has_a_name_of_its_own_in_any_case(store: Arc<dyn Store>) {
    let alice = user(1, "Alice", Role::Admin);
    added(&store, &alice).await;
    let twin = user(2, "aLICE", Role::Viewer);
    let taken = store.insert_user(&twin, operator()).await;
    assert!(matches!(taken, Err(UserError::NameTaken)), "{taken:?}");
    let found = store.user_named("ALICE").await.expect("answered");
    assert_eq!(found, Some(alice.clone()));
    assert_eq!(store.user_named("bob").await.expect("answered"), None);
    let bob = user(3, "bob", Role::Operator);
    added(&store, &bob).await;
    assert_eq!(
        store.user(bob.id).await.expect("answered"),
        Some(bob.clone())
    );
    let nobody = UserId::new(uuid(1));
    assert_eq!(store.user(nobody).await.expect("answered"), None);
    assert_eq!(store.users().await.expect("answered"), [alice, bob]);
}

pub(crate) async fn of_first_users_that_race_one_is_made(store: Arc<dyn Store>) {
    let users: Vec<UserRow> = (1..=6)
        .map(|number| user(number, &format!("admin-{number}"), Role::Admin))
        .collect();
    let made = join_all(users.iter().map(|user| store.insert_first_user(user))).await;
    let made: Vec<bool> = made
        .into_iter()
        .map(|made| made.expect("answered"))
        .collect();
    assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
    assert_eq!(store.users().await.expect("answered").len(), 1);
}

pub(crate) async fn the_last_admin_stays_one(store: Arc<dyn Store>) {
    let alice = user(1, "alice", Role::Admin);
    let bob = user(2, "bob", Role::Viewer);
    added(&store, &alice).await;
    added(&store, &bob).await;
    let role = |user: UserId, role| {
        store.change_user(UserChange {
            user,
            password: None,
            role: Some(role),
            actor: operator(),
            now: at(5),
        })
    };
    let delete = |user: UserId| store.delete_user(user, operator(), at(6));
    let last = role(alice.id, Role::Viewer).await;
    assert!(matches!(last, Err(UserError::LastAdmin)), "{last:?}");
    let last = delete(alice.id).await;
    assert!(matches!(last, Err(UserError::LastAdmin)), "{last:?}");

    role(bob.id, Role::Admin).await.expect("promoted");
    delete(alice.id).await.expect("another admin is there");
    let unknown = delete(alice.id).await;
    assert!(matches!(unknown, Err(UserError::Unknown)), "{unknown:?}");
    let unknown = role(alice.id, Role::Admin).await;
    assert!(matches!(unknown, Err(UserError::Unknown)), "{unknown:?}");
    let left = store.users().await.expect("answered");
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].id, left[0].role), (bob.id, Role::Admin));
}

pub(crate) async fn a_user_is_changed_whole_or_not_at_all(store: Arc<dyn Store>) {
    let alice = user(1, "alice", Role::Admin);
    added(&store, &alice).await;
    opened(&store, 1, &alice).await;
    let told = async || -> Vec<(String, String)> {
        let told = store.audit_log(9).await.expect("answered");
        let told = told
            .into_iter()
            .filter(|entry| entry.action != "user.create");
        told.map(|entry| (entry.action, entry.detail)).collect()
    };
    let both = |role, replaces| UserChange {
        role: Some(role),
        ..password(&alice, "$argon2id$new", replaces)
    };
    let refused = store.change_user(both(Role::Viewer, None)).await;
    assert!(matches!(refused, Err(UserError::LastAdmin)), "{refused:?}");
    let refused = store.change_user(both(Role::Admin, Some("another"))).await;
    assert!(matches!(refused, Err(UserError::Overtaken)), "{refused:?}");
    let found = async || store.user(alice.id).await.expect("answered");
    assert_eq!(found().await, Some(alice.clone()));
    let sessions = async || store.sessions(alice.id, at(61)).await.expect("answered");
    assert_eq!(sessions().await, [session(1, &alice)]);
    assert_eq!(told().await, []);

    // What is as it was is no change.
    let nothing = UserChange {
        password: None,
        ..both(Role::Admin, None)
    };
    let same = store.change_user(nothing).await.expect("answered");
    assert_eq!((same, told().await), (alice.clone(), Vec::new()));

    added(&store, &user(2, "bob", Role::Admin)).await;
    let changed = store.change_user(both(Role::Viewer, None)).await;
    let changed = changed.expect("another admin is there");
    assert_eq!(found().await, Some(changed.clone()));
    assert_eq!(changed.role, Role::Viewer);
    assert_eq!(changed.password_hash.expose(), "$argon2id$new");
    assert_eq!(sessions().await, []);
    let entry = |action: &str, detail: &str| (action.to_owned(), detail.to_owned());
    assert_eq!(
        told().await,
        [
            entry("user.password", ""),
            entry("user.role", "admin to viewer")
        ]
    );
}

pub(crate) async fn a_session_is_of_use_until_it_ends(store: Arc<dyn Store>) {
    let alice = user(1, "alice", Role::Admin);
    let bob = user(2, "bob", Role::Viewer);
    added(&store, &alice).await;
    added(&store, &bob).await;
    for (number, owner) in [(1, &alice), (2, &alice), (3, &bob), (4, &bob)] {
        opened(&store, number, owner).await;
    }
    let found = |number: u8, now| {
        let store = Arc::clone(&store);
        async move {
            store
                .session(&[number; 32], at(now))
                .await
                .expect("answered")
        }
    };
    assert_eq!(
        found(1, 99).await,
        Some((session(1, &alice), alice.clone()))
    );
    assert_eq!(found(1, 100).await, None, "it has expired");
    assert_eq!(found(9, 50).await, None);
    let open = store.sessions(alice.id, at(50)).await.expect("answered");
    assert_eq!(open, [session(2, &alice), session(1, &alice)]);

    assert!(store.end_session(&[1; 32]).await.expect("ended"));
    assert!(!store.end_session(&[1; 32]).await.expect("answered"));
    assert_eq!(found(1, 50).await, None);

    // Whoever knew the old password is out; others stay in.
    let set = store.change_user(password(&alice, "$argon2id$new", None));
    let set = set.await.expect("set");
    assert_eq!(found(2, 61).await, None);
    let row = store.user_named("alice").await.expect("answered");
    assert_eq!(row.as_ref(), Some(&set));
    assert_eq!(set.password_hash.expose(), "$argon2id$new");
    assert_eq!((set.must_change, set.password_at), (false, at(60)));
    assert!(found(3, 61).await.is_some());
    assert_eq!(store.end_sessions(bob.id).await.expect("ended"), 2);
    assert_eq!(found(3, 61).await, None);

    opened(&store, 5, &bob).await;
    store
        .delete_user(bob.id, operator(), at(62))
        .await
        .expect("removed");
    assert_eq!(found(5, 62).await, None);
}

pub(crate) async fn what_was_checked_against_an_old_password_has_no_effect(store: Arc<dyn Store>) {
    let alice = user(1, "alice", Role::Admin);
    added(&store, &alice).await;
    let open = async |number, shown: &str| {
        let shown = PasswordHash::new(shown.to_owned());
        let stored = store.insert_session(&session(number, &alice), &shown).await;
        stored.expect("answered")
    };
    let first = alice.password_hash.expose().to_owned();
    let set = |hash, replaces| store.change_user(password(&alice, hash, replaces));
    set("$argon2id$second", Some(&first)).await.expect("set");
    assert!(!open(1, &first).await, "it is the old one");
    assert!(open(2, "$argon2id$second").await);

    let late = set("$argon2id$late", Some(&first)).await;
    assert!(matches!(late, Err(UserError::Overtaken)), "{late:?}");
    let row = store.user(alice.id).await.expect("answered");
    let row = row.expect("it is there");
    assert_eq!(row.password_hash.expose(), "$argon2id$second");
    let left = store.sessions(alice.id, at(61)).await.expect("answered");
    assert_eq!(left, [session(2, &alice)], "it ended none");
    let told = store.audit_log(9).await.expect("answered");
    let told = told.iter().filter(|entry| entry.action == "user.password");
    assert_eq!(told.count(), 1);

    // Of changes that race one has seen what it overwrites.
    let racers = (0..6).map(|racer| {
        let hash = format!("$argon2id$racer-{racer}");
        let set = password(&alice, &hash, Some("$argon2id$second"));
        store.change_user(set)
    });
    let set = join_all(racers).await;
    assert_eq!(set.iter().filter(|set| set.is_ok()).count(), 1, "{set:?}");
    // Nobody has a session who is not there.
    let nobody = user(9, "nobody", Role::Viewer);
    let theirs = session(9, &nobody);
    let stored = store.insert_session(&theirs, &nobody.password_hash);
    assert!(!stored.await.expect("answered"));
}

pub(crate) async fn an_api_token_is_of_use_until_it_expires_or_is_revoked(store: Arc<dyn Store>) {
    let token = |number: u8, expires_at| ApiTokenRow {
        id: ApiTokenId::new(uuid(0xb000 + u128::from(number))),
        hash: [number; 32],
        name: format!("ci-{number}"),
        role: Role::Viewer,
        creator: "alice".to_owned(),
        created_at: at(i64::from(number)),
        expires_at,
        revoked_at: None,
    };
    let (short, long) = (token(1, Some(at(50))), token(2, None));
    for token in [&short, &long] {
        store
            .insert_api_token(token, operator())
            .await
            .expect("stored");
    }
    let found = |number: u8, now| {
        let store = Arc::clone(&store);
        async move {
            store
                .api_token(&[number; 32], at(now))
                .await
                .expect("answered")
        }
    };
    assert_eq!(found(1, 49).await, Some(short.clone()));
    assert_eq!(found(1, 50).await, None);
    assert_eq!(found(2, 5000).await, Some(long.clone()));
    let revoke = |id| store.revoke_api_token(id, operator(), at(60));
    assert!(revoke(long.id).await.expect("revoked"));
    assert!(!revoke(long.id).await.expect("answered"));
    assert_eq!(found(2, 61).await, None);
    let revoked = ApiTokenRow {
        revoked_at: Some(at(60)),
        ..long
    };
    assert_eq!(
        store.api_tokens().await.expect("answered"),
        [revoked, short]
    );
}

pub(crate) async fn a_request_that_is_sent_again_gets_the_first_answer(store: Arc<dyn Store>) {
    let request = |key: &str, digest: u8, now: i64| KeyedRequest {
        owner: "alice".to_owned(),
        key: key.to_owned(),
        digest: [digest; 32],
        lease_until: at(now + 10),
        expires_at: at(now + 100),
        now: at(now),
    };
    let take = |request: KeyedRequest| {
        let store = Arc::clone(&store);
        async move { store.take_keyed(&request).await.expect("answered") }
    };
    let racers = join_all((0..6).map(|_| take(request("a", 1, 0)))).await;
    let fresh = racers
        .iter()
        .filter(|taken| **taken == Keyed::Fresh)
        .count();
    let running = racers.iter().filter(|it| **it == Keyed::Running).count();
    assert_eq!((fresh, running), (1, 5), "{racers:?}");
    assert_eq!(take(request("a", 2, 1)).await, Keyed::Differs);
    let other = KeyedRequest {
        owner: "bob".to_owned(),
        ..request("a", 1, 1)
    };
    assert_eq!(take(other).await, Keyed::Fresh, "keys are each user's own");

    let answer = Keyed::Answered {
        status: 201,
        body: b"{}\0".to_vec(),
    };
    store
        .keep_answer(&request("a", 1, 2), 201, b"{}\0")
        .await
        .expect("kept");
    store
        .keep_answer(&request("a", 1, 2), 500, b"late")
        .await
        .expect("answered");
    assert_eq!(take(request("a", 1, 50)).await, answer);
    assert_eq!(take(request("a", 2, 50)).await, Keyed::Differs);
    assert_eq!(take(request("a", 2, 100)).await, Keyed::Fresh, "it expired");

    // Of one that did nothing.
    assert_eq!(take(request("b", 1, 0)).await, Keyed::Fresh);
    store
        .release_key(&request("b", 1, 1))
        .await
        .expect("released");
    assert_eq!(take(request("b", 2, 2)).await, Keyed::Fresh);

    // Of one that was served by a master that died, or is slower than its lease.
    assert_eq!(take(request("c", 1, 0)).await, Keyed::Fresh);
    assert_eq!(take(request("c", 1, 9)).await, Keyed::Running);
    assert_eq!(take(request("c", 1, 10)).await, Keyed::Unknown);
    assert_eq!(take(request("c", 2, 10)).await, Keyed::Differs);
    assert_eq!(take(request("c", 1, 99)).await, Keyed::Unknown);
    store
        .keep_answer(&request("c", 1, 99), 201, b"{}\0")
        .await
        .expect("kept");
    assert_eq!(take(request("c", 1, 99)).await, answer);
    assert_eq!(take(request("c", 1, 100)).await, Keyed::Fresh);
}

pub(crate) async fn whoever_witnesses_is_told_of_a_commit_and_of_nothing_else(
    store: Arc<dyn Store>,
) {
    let alice = user(1, "alice", Role::Admin);
    let (made, effect) = witnessed(store.insert_user(&alice, operator())).await;
    made.expect("a new user is stored");
    assert_eq!(effect, Effect::Possible);

    let (_, effect) = witnessed(async {
        store.users().await.expect("answered");
        let twin = user(2, "ALICE", Role::Viewer);
        let taken = store.insert_user(&twin, operator()).await;
        assert!(matches!(taken, Err(UserError::NameTaken)), "{taken:?}");
        let last = store.delete_user(alice.id, operator(), at(5)).await;
        assert!(matches!(last, Err(UserError::LastAdmin)), "{last:?}");
        // Somebody else's meanwhile.
        let bob = user(3, "bob", Role::Viewer);
        let ((), effect) = witnessed(added(&store, &bob)).await;
        assert_eq!(effect, Effect::Possible);
    })
    .await;
    assert_eq!(effect, Effect::Nothing);

    // What is begun in a task of its own is of whoever began it.
    let ((), effect) = witnessed(async {
        let store = Arc::clone(&store);
        let made = task::spawn("test", tracing::Span::none(), async move {
            let carol = user(4, "carol", Role::Viewer);
            added(&store, &carol).await;
        });
        made.await.expect("it does not panic");
    })
    .await;
    assert_eq!(effect, Effect::Possible);
}

/// A user with a session that expires at 100.
pub(crate) async fn one_session(store: &Arc<dyn Store>) {
    let alice = user(1, "alice", Role::Admin);
    added(store, &alice).await;
    opened(store, 1, &alice).await;
}
