//! The first admin, its file, and who is let in, over a real store.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;

use tempfile::TempDir;

use super::*;
use crate::db::accounts::PasswordHash;
use crate::db::sqlite;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct World {
    operators: Operators,
    store: Arc<dyn Store>,
    now: Arc<Mutex<OffsetDateTime>>,
    folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let store = sqlite::open(&folder.path().join("master.db")).await;
        let store: Arc<dyn Store> = Arc::new(store.expect("a new database"));
        let start = OffsetDateTime::from_unix_timestamp(1_900_000_000).expect("a time");
        let now = Arc::new(Mutex::new(start));
        let clock: Clock = {
            let now = Arc::clone(&now);
            Arc::new(move || *now.lock().expect("nobody panics with it"))
        };
        let file = folder.path().join(PASSWORD_FILE);
        Self {
            operators: Operators::new(Arc::clone(&store), clock, file),
            store,
            now,
            folder,
        }
    }

    fn password(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.folder.path().join(PASSWORD_FILE)).ok()?;
        Some(text.trim().to_owned())
    }

    fn pass(&self, seconds: i64) {
        *self.now.lock().expect("nobody panics with it") += time::Duration::seconds(seconds);
    }

    async fn login(&self, name: &str, password: &str) -> Result<Opened, LoginError> {
        self.operators.login(name, password.to_owned(), HERE).await
    }
}

#[tokio::test]
async fn the_first_start_makes_an_admin_whose_password_is_in_a_file_until_it_is_changed() {
    let world = World::new().await;
    world.operators.ensure_first().await.expect("made");
    let password = world.password().expect("a file");
    let path = world.folder.path().join(PASSWORD_FILE);
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // A second start changes nothing.
    world.operators.ensure_first().await.expect("there");
    assert_eq!(world.password().as_ref(), Some(&password));

    let opened = world.login("ADMIN", &password).await.expect("let in");
    assert!(opened.user.must_change);
    assert_eq!(opened.user.role, Role::Admin);
    let session = world
        .store
        .session(&opened.token.hash(), (world.operators.clock)())
        .await
        .expect("answered");
    assert_eq!(session.expect("stored").0.origin, "127.0.0.1");

    let new = "correct horse battery".to_owned();
    let id = opened.user.id;
    let wrong = ("not the one".to_owned(), new.clone());
    let refused = world.operators.change_own_password(id, wrong, HERE).await;
    assert!(
        matches!(refused, Err(PasswordError::Current(LoginError::Refused))),
        "{refused:?}"
    );
    let same = (password.clone(), password.clone());
    let refused = world.operators.change_own_password(id, same, HERE).await;
    assert!(
        matches!(refused, Err(PasswordError::Weak(Weak::Same))),
        "{refused:?}"
    );
    let passwords = (password.clone(), new.clone());
    let again = world
        .operators
        .change_own_password(id, passwords, HERE)
        .await
        .expect("changed");
    assert!(!again.user.must_change);
    assert_eq!(world.password(), None, "it is of no use any more");
    let now = (world.operators.clock)();
    let ended = world.store.session(&opened.token.hash(), now).await;
    assert_eq!(ended.expect("answered"), None, "the old session has ended");
    assert!(matches!(
        world.login("admin", &password).await,
        Err(LoginError::Refused)
    ));
    world.login("admin", &new).await.expect("let in");
}

#[tokio::test]
async fn a_check_that_takes_long_is_overtaken_by_a_change_of_the_password() {
    let world = World::new().await;
    world.operators.ensure_first().await.expect("made");
    let old = world.password().expect("a file");
    let admin = world.store.user_named(FIRST).await.expect("answered");
    let admin = admin.expect("there");

    // Both have read the old hash, and wait for their turn to check it.
    let held = world.operators.hasher.held().await;
    let passwords = (old.clone(), "correct horse battery".to_owned());
    let login = world.login(FIRST, &old);
    let change = world
        .operators
        .change_own_password(admin.id, passwords, HERE);
    let reset = async {
        while world.operators.hasher.queued() < 2 {
            tokio::task::yield_now().await;
        }
        let reset = UserChange {
            user: admin.id,
            password: Some(NewPassword {
                hash: PasswordHash::new("$argon2id$reset".to_owned()),
                replaces: None,
                must_change: true,
            }),
            role: None,
            actor: Actor::Reconciler,
            now: (world.operators.clock)(),
        };
        world.store.change_user(reset).await.expect("set");
        drop(held);
    };
    let (login, change, ()) = tokio::join!(login, change, reset);
    assert!(matches!(login, Err(LoginError::Refused)), "{login:?}");
    assert!(
        matches!(change, Err(PasswordError::User(UserError::Overtaken))),
        "{change:?}"
    );
    let row = world.store.user(admin.id).await.expect("answered");
    let row = row.expect("there");
    assert_eq!(row.password_hash.expose(), "$argon2id$reset");
    let now = (world.operators.clock)();
    let open = world.store.sessions(admin.id, now).await;
    assert_eq!(open.expect("answered"), []);
    let told = world.store.audit_log(1).await.expect("answered");
    assert_eq!(told[0].action, "session.refuse");
    assert!(
        world.password().is_some(),
        "no change that was lost removes it"
    );
}

#[tokio::test]
async fn a_reset_makes_the_admin_one_again_whatever_became_of_it() {
    let world = World::new().await;
    world.operators.reset_admin().await.expect("made anew");
    let first = world.password().expect("a file");
    world.login("admin", &first).await.expect("let in");

    let admin = world.store.user_named(FIRST).await.expect("answered");
    let admin = admin.expect("there");
    let other = NewUser {
        name: "bob".to_owned(),
        role: Role::Admin,
        password: Given::OneTime,
    };
    let made = world.operators.create(other, Actor::Reconciler).await;
    assert!(made.expect("made").one_time.is_some());
    let now = (world.operators.clock)();
    let demoted = world.store.change_user(UserChange {
        user: admin.id,
        password: None,
        role: Some(Role::Viewer),
        actor: Actor::Reconciler,
        now,
    });
    demoted.await.expect("another admin is there");

    world.operators.reset_admin().await.expect("reset");
    let second = world.password().expect("a file");
    assert_ne!(first, second);
    let opened = world.login("admin", &second).await.expect("let in");
    assert_eq!(
        (opened.user.role, opened.user.must_change),
        (Role::Admin, true)
    );
}

#[tokio::test]
async fn too_many_wrong_passwords_make_the_right_one_wait_too() {
    let world = World::new().await;
    world.operators.ensure_first().await.expect("made");
    let password = world.password().expect("a file");
    for _ in 0..5 {
        let refused = world.login("admin", "wrong").await;
        assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    }
    let refused = world.login("admin", &password).await;
    assert!(
        matches!(refused, Err(LoginError::Throttled { after }) if after == Duration::from_secs(1)),
        "{refused:?}"
    );
    world.pass(1);
    world.login("admin", &password).await.expect("let in");
    world.login("admin", &password).await.expect("free again");

    let told = world.store.audit_log(20).await.expect("answered");
    let refusals = told.iter().filter(|entry| entry.action == "session.refuse");
    assert_eq!(refusals.count(), 5);
    // What may be a password in the wrong field is not written down.
    let hidden = world.login("hunter2-is-my-secret", "x").await;
    assert!(matches!(hidden, Err(LoginError::Refused)), "{hidden:?}");
    let told = world.store.audit_log(1).await.expect("answered");
    assert_eq!(
        (&*told[0].subject, &*told[0].detail),
        ("unknown", "from 127.0.0.1")
    );
}

#[tokio::test]
async fn a_user_has_so_many_sessions_and_the_oldest_gives_way() {
    let world = World::new().await;
    world.operators.ensure_first().await.expect("made");
    let password = world.password().expect("a file");
    let first = world.login("admin", &password).await.expect("let in");
    for _ in 0..SESSIONS {
        world.pass(1);
        world.login("admin", &password).await.expect("let in");
    }
    let now = (world.operators.clock)();
    let open = world.store.sessions(first.user.id, now).await;
    assert_eq!(open.expect("answered").len(), SESSIONS);
    let gone = world.store.session(&first.token.hash(), now).await;
    assert_eq!(gone.expect("answered"), None);
}
