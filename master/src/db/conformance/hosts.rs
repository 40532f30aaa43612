//! Laws of tokens, hosts, keys and the audit log.

use std::sync::Arc;

use domain::host::Standing;
use domain::topology::status::TopologyStatus;
use futures_util::future::join_all;

use super::{
    at, deployed, enrolled, host, key, operator, redemption, stand, status, token, topology,
};
use crate::db::{
    Actor, AuditEntry, Force, RedeemError, Redemption, StandingError, Store, StoreError,
    TokenRefusal,
};

async fn refused(store: &Arc<dyn Store>, redemption: Redemption) -> TokenRefusal {
    match store.redeem(redemption).await {
        Err(RedeemError::Refused(refusal)) => refusal,
        other => panic!("a redemption that is to be refused gave {other:?}"),
    }
}

pub(crate) async fn a_token_is_redeemed_once_and_given_again_to_the_same_key(
    store: Arc<dyn Store>,
) {
    store
        .insert_token(token(1, "edge-07"))
        .await
        .expect("stored");
    let first = store.redeem(redemption(1)).await.expect("redeemed");
    assert_eq!(first.host, redemption(1).host);
    assert_eq!(first.name.as_str(), "edge-07");
    assert_eq!(first.certificate, None);
    store
        .keep_certificate(token(1, "x").id, b"DER")
        .await
        .expect("kept");

    // The reply was lost: the agent asks again, the master proposes another identity.
    let again = Redemption {
        host: redemption(2).host,
        now: at(3599),
        ..redemption(1)
    };
    let again = store.redeem(again).await.expect("given again");
    assert_eq!(
        (again.host, again.certificate),
        (first.host, Some(b"DER".to_vec()))
    );

    let thief = Redemption {
        key: key(9),
        ..redemption(1)
    };
    assert_eq!(refused(&store, thief).await, TokenRefusal::Used);
    let late = Redemption {
        now: at(3600),
        ..redemption(1)
    };
    assert_eq!(refused(&store, late).await, TokenRefusal::Expired);

    let row = host(&store, first.host).await;
    assert_eq!(row.standing, Standing::Open);
    assert_eq!(row.enrolled_at, at(1));
    assert_eq!(row.assignment.content, None);
    let keys = store.allowed_keys().await.expect("answered");
    assert_eq!(
        keys.iter().map(|allowed| allowed.key).collect::<Vec<_>>(),
        [key(1)]
    );
}

pub(crate) async fn of_keys_that_race_for_a_token_one_wins(store: Arc<dyn Store>) {
    store.insert_token(token(1, "edge")).await.expect("stored");
    let racers = (1..=16).map(|number| {
        let racer = Redemption {
            token: redemption(1).token,
            secret_hash: redemption(1).secret_hash,
            ..redemption(number)
        };
        let store = Arc::clone(&store);
        async move { store.redeem(racer).await }
    });
    let results = join_all(racers).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    let used = results
        .iter()
        .filter(|result| matches!(result, Err(RedeemError::Refused(TokenRefusal::Used))))
        .count();
    assert_eq!((won, used), (1, 15));
    assert_eq!(store.hosts(true).await.expect("answered").len(), 1);
}

pub(crate) async fn a_refused_token_leaves_no_host_and_is_audited(store: Arc<dyn Store>) {
    enrolled(&store, 1, "edge").await;
    store.insert_token(token(2, "EDGE")).await.expect("stored");
    store.insert_token(token(3, "other")).await.expect("stored");

    let cases = [
        (redemption(7), TokenRefusal::Unknown),
        (
            Redemption {
                secret_hash: [8; 32],
                ..redemption(3)
            },
            TokenRefusal::Unknown,
        ),
        (
            Redemption {
                now: at(3600),
                ..redemption(3)
            },
            TokenRefusal::Expired,
        ),
        (
            Redemption {
                expected_name: Some("edge".to_owned()),
                ..redemption(3)
            },
            TokenRefusal::Misnamed,
        ),
        (redemption(2), TokenRefusal::NameTaken),
    ];
    for (redemption, expected) in cases {
        assert_eq!(refused(&store, redemption).await, expected);
    }

    assert_eq!(store.hosts(true).await.expect("answered").len(), 1);
    let log = store.audit_log(100).await.expect("answered");
    let refusals = log
        .iter()
        .filter(|entry| entry.action == "token.refuse")
        .count();
    assert_eq!(refusals, 5);
    // None of them was used up by being refused.
    let named = Redemption {
        expected_name: Some("OTHER".to_owned()),
        ..redemption(3)
    };
    store
        .redeem(named)
        .await
        .expect("redeemed by the name in another case");
}

pub(crate) async fn tokens_that_are_of_no_use_are_not_listed(store: Arc<dyn Store>) {
    enrolled(&store, 1, "redeemed").await;
    store
        .insert_token(token(2, "removed"))
        .await
        .expect("stored");
    store
        .insert_token(token(3, "expired"))
        .await
        .expect("stored");
    let mut later = token(4, "later");
    later.expires_at = at(7200);
    store.insert_token(later.clone()).await.expect("stored");

    let id = token(2, "removed").id;
    assert!(
        store
            .delete_token(id, operator(), at(2))
            .await
            .expect("answered")
    );
    assert!(
        !store
            .delete_token(id, operator(), at(2))
            .await
            .expect("answered")
    );

    let now = store.tokens(at(2)).await.expect("answered");
    assert_eq!(now, [token(3, "expired"), later.clone()]);
    assert_eq!(store.tokens(at(3600)).await.expect("answered"), [later]);
}

pub(crate) async fn a_name_is_free_again_after_removal_and_not_before(store: Arc<dyn Store>) {
    let first = enrolled(&store, 1, "edge").await;
    stand(&store, first, Standing::Revoked).await;
    store.insert_token(token(2, "Edge")).await.expect("stored");
    assert_eq!(
        refused(&store, redemption(2)).await,
        TokenRefusal::NameTaken
    );

    stand(&store, first, Standing::Removed).await;
    let second = store
        .redeem(redemption(2))
        .await
        .expect("the name is free")
        .host;
    assert_ne!(first, second);
    let living: Vec<_> = store
        .hosts(false)
        .await
        .expect("answered")
        .iter()
        .map(|row| row.id)
        .collect();
    assert_eq!(living, [second]);
    assert_eq!(store.hosts(true).await.expect("answered").len(), 2);
    // The token of a host that is gone gives nobody its identity.
    assert_eq!(refused(&store, redemption(1)).await, TokenRefusal::Used);
}

pub(crate) async fn a_standing_moves_only_along_its_arrows(store: Arc<dyn Store>) {
    use Standing::{Cordoned, Draining, Open, Removed, Revoked};
    let paths: [(&[Standing], &[Standing]); 5] = [
        (&[], &[Cordoned, Draining, Revoked, Removed]),
        (&[Cordoned], &[Open, Draining, Revoked, Removed]),
        (&[Draining], &[Open, Revoked, Removed]),
        (&[Revoked], &[Removed]),
        (&[Removed], &[]),
    ];
    let mut number = 0;
    for (path, allowed) in paths {
        for to in Standing::ALL {
            number += 1;
            let id = enrolled(&store, number, &format!("host-{number}")).await;
            for step in path {
                stand(&store, id, *step).await;
            }
            let from = host(&store, id).await.standing;
            match store
                .set_standing(id, to, Force::No, operator(), at(50))
                .await
            {
                Ok(row) => {
                    assert!(allowed.contains(&to), "{from} became {to}");
                    assert_eq!(row.standing, to);
                }
                Err(StandingError::Illegal {
                    from: said,
                    to: asked,
                }) => {
                    assert!(!allowed.contains(&to), "{from} did not become {to}");
                    assert_eq!((said, asked), (from, to));
                    assert_eq!(host(&store, id).await.standing, from);
                }
                Err(error) => panic!("{from} to {to} gave {error:?}"),
            }
        }
    }
    let nobody = redemption(200).host;
    let unknown = store
        .set_standing(nobody, Cordoned, Force::No, operator(), at(50))
        .await;
    assert!(
        matches!(unknown, Err(StandingError::Unknown)),
        "{unknown:?}"
    );
}

pub(crate) async fn revocation_takes_the_keys_and_leaves_the_topology(store: Arc<dyn Store>) {
    let id = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 1);
    let assignment = deployed(&store, &maze, id).await;

    stand(&store, id, Standing::Revoked).await;
    assert_eq!(store.allowed_keys().await.expect("answered"), []);
    assert_eq!(status(&store, &maze).await, TopologyStatus::Deploying);
    assert_eq!(host(&store, id).await.assignment, assignment);

    // A renewal that was under way when the host was revoked.
    let renewal = store.add_key(id, key(2), key(1), at(60), at(0)).await;
    assert!(
        matches!(renewal, Err(StoreError::Failed { .. })),
        "{renewal:?}"
    );
    assert_eq!(store.allowed_keys().await.expect("answered"), []);
}

pub(crate) async fn a_renewal_keeps_the_key_in_use_and_forgets_old_ones(store: Arc<dyn Store>) {
    let id = enrolled(&store, 1, "edge").await;
    store
        .add_key(id, key(2), key(1), at(100), at(0))
        .await
        .expect("renewed");
    store
        .add_key(id, key(3), key(1), at(200), at(150))
        .await
        .expect("renewed");
    let keys = |allowed: Vec<crate::db::AllowedKey>| {
        allowed
            .iter()
            .map(|allowed| allowed.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys(store.allowed_keys().await.expect("answered")),
        [key(1), key(3)]
    );
    // The same renewal again: the reply was lost.
    store
        .add_key(id, key(3), key(1), at(201), at(150))
        .await
        .expect("renewed");
    assert_eq!(
        keys(store.allowed_keys().await.expect("answered")),
        [key(1), key(3)]
    );
}

pub(crate) async fn draining_takes_the_topology_down(store: Arc<dyn Store>) {
    let id = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 1);
    let before = deployed(&store, &maze, id).await;

    let row = stand(&store, id, Standing::Draining).await;
    assert_eq!(row.assignment.content, None);
    assert!(row.assignment.fence > before.fence);
    assert_eq!(status(&store, &maze).await, TopologyStatus::TearingDown);
    let changes = store.status_changes(maze.id).await.expect("answered");
    assert_eq!(
        changes.last().map(|change| change.reason.as_str()),
        Some("the host edge is drained")
    );
    assert_eq!(
        stand(&store, id, Standing::Open).await.assignment,
        row.assignment
    );
}

pub(crate) async fn removal_of_an_occupied_host_needs_force(store: Arc<dyn Store>) {
    let id = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 1);
    let before = deployed(&store, &maze, id).await;

    let remove = |force| store.set_standing(id, Standing::Removed, force, operator(), at(70));
    match remove(Force::No).await {
        Err(StandingError::Occupied(topology)) => assert_eq!(topology, maze.id),
        other => panic!("an occupied host was removed: {other:?}"),
    }
    assert_eq!(status(&store, &maze).await, TopologyStatus::Deploying);

    let row = remove(Force::Yes).await.expect("removed by force");
    assert_eq!(row.standing, Standing::Removed);
    assert_eq!(row.assignment.content, None);
    assert!(row.assignment.fence > before.fence);
    assert_eq!(status(&store, &maze).await, TopologyStatus::TornDown);
    let path: Vec<_> = store
        .status_changes(maze.id)
        .await
        .expect("answered")
        .iter()
        .map(|change| change.to)
        .collect();
    use TopologyStatus::{Deploying, TearingDown, TornDown};
    assert_eq!(path, [Deploying, TearingDown, TornDown]);
    // The tombstone may connect, to be told to hold nothing.
    let keys = store.allowed_keys().await.expect("answered");
    assert_eq!(
        keys.iter().map(|key| key.standing).collect::<Vec<_>>(),
        [Standing::Removed]
    );
}

pub(crate) async fn last_seen_only_advances(store: Arc<dyn Store>) {
    let first = enrolled(&store, 1, "a").await;
    let second = enrolled(&store, 2, "b").await;
    let before = store.audit_log(100).await.expect("answered").len();
    let version = |text: &str| text.to_owned();
    store
        .touch_hosts(&[
            (first, at(100), version("0.2.0")),
            (second, at(90), version("0.1.0")),
        ])
        .await
        .expect("flushed");
    store
        .touch_hosts(&[(first, at(80), version("0.2.1"))])
        .await
        .expect("flushed");
    store.touch_hosts(&[]).await.expect("nothing to flush");

    let row = host(&store, first).await;
    assert_eq!(
        (row.last_seen, row.agent_version.as_str()),
        (Some(at(100)), "0.2.1")
    );
    assert_eq!(host(&store, second).await.last_seen, Some(at(90)));
    assert_eq!(store.audit_log(100).await.expect("answered").len(), before);
}

pub(crate) async fn the_audit_log_is_read_newest_first(store: Arc<dyn Store>) {
    let entry = |seconds, actor| AuditEntry {
        at: at(seconds),
        actor,
        action: "test.write".to_owned(),
        subject: "a:b".to_owned(),
        detail: format!("{seconds}"),
    };
    let actors = [
        operator(),
        Actor::Operator("a:b".to_owned()),
        Actor::Host(redemption(1).host),
        Actor::Reconciler,
    ];
    for (seconds, actor) in (0..).zip(actors.clone()) {
        store.audit(entry(seconds, actor)).await.expect("written");
    }
    let [_, second, third, fourth] = actors;
    let log = store.audit_log(3).await.expect("answered");
    assert_eq!(log, [entry(3, fourth), entry(2, third), entry(1, second)]);
}
