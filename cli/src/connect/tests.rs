use super::*;

fn master_in(dir: &Path, api: &str, token: &str) {
    let endpoints = Endpoints {
        api: api.to_owned(),
        fleet: "https://127.0.0.1:7443".to_owned(),
    };
    std::fs::write(
        dir.join(ENDPOINTS),
        serde_json::to_vec(&endpoints).expect("plain"),
    )
    .expect("dir");
    std::fs::write(dir.join(ADMIN_TOKEN), format!("{token}\n")).expect("dir");
}

fn resolved(place: &Place) -> (String, String) {
    let endpoint = place.resolve().expect("a master is named");
    (endpoint.url.to_string(), endpoint.token.0)
}

fn place() -> Place {
    Place::default()
}

#[test]
fn a_data_directory_names_master_and_token() {
    let dir = tempfile::tempdir().expect("a directory");
    master_in(dir.path(), "http://127.0.0.1:8099", "dna_one");
    let place = Place {
        data_dir: Some(dir.path().to_owned()),
        ..place()
    };
    assert_eq!(
        resolved(&place),
        ("http://127.0.0.1:8099/".to_owned(), "dna_one".to_owned())
    );
}

#[test]
fn a_url_comes_before_a_directory_and_takes_its_token() {
    let dir = tempfile::tempdir().expect("a directory");
    master_in(dir.path(), "http://127.0.0.1:8099", "dna_one");
    let mut place = Place {
        url: Some("http://127.0.0.1:1".to_owned()),
        data_dir: Some(dir.path().to_owned()),
        ..place()
    };
    assert_eq!(
        resolved(&place),
        ("http://127.0.0.1:1/".to_owned(), "dna_one".to_owned())
    );
    place.prefer_data_dir = true;
    assert_eq!(resolved(&place).0, "http://127.0.0.1:8099/");
    place.token = Some(Token("dna_two".to_owned()));
    assert_eq!(resolved(&place).1, "dna_two");
}

#[test]
fn a_token_never_goes_to_a_master_that_did_not_write_it() {
    let dir = tempfile::tempdir().expect("a directory");
    master_in(dir.path(), "http://127.0.0.1:8099", "dna_one");
    let mut place = Place {
        url: Some("http://127.0.0.1:1".to_owned()),
        fallbacks: vec![dir.path().to_owned()],
        ..place()
    };
    let refusal = place.resolve().expect_err("another master");
    assert!(
        refusal.lines()[0].contains("no token for http://127.0.0.1:1/"),
        "{refusal:?}"
    );
    place.url = Some("http://127.0.0.1:8099".to_owned());
    assert_eq!(resolved(&place).1, "dna_one");
}

#[test]
fn saying_nothing_names_the_three_ways() {
    let refusal = place().resolve().expect_err("nothing is said");
    let text = refusal.lines().join("\n");
    for way in ["DECNET_URL", "DECNET_DATA_DIR", "decnet up"] {
        assert!(text.contains(way), "{text}");
    }
}

#[test]
fn a_directory_without_a_master_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = Place {
        data_dir: Some(dir.path().to_owned()),
        ..place()
    };
    let text = place.resolve().expect_err("no master").lines().join("\n");
    assert!(
        text.contains("no master serves there") && text.contains("decnet up --data-dir"),
        "{text}"
    );
}

#[test]
fn a_word_that_is_no_url_is_a_usage_error() {
    let place = Place {
        url: Some("master".to_owned()),
        ..place()
    };
    assert_eq!(place.resolve().expect_err("no URL").exit(), Exit::Usage);
}

fn logged_in(home: &Path, url: &str, token: &str) {
    let sessions = Sessions::new(Some(home)).expect("a place");
    let kept = crate::access::sessions::Kept {
        name: "alice".to_owned(),
        token: token.to_owned(),
        expires_at: "2999-01-01T00:00:00Z".to_owned(),
    };
    sessions.keep(url, kept).expect("kept");
}

#[test]
fn a_session_comes_before_the_token_of_the_machine_and_after_one_that_is_stated() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = tempfile::tempdir().expect("a directory");
    master_in(dir.path(), "http://127.0.0.1:8099", "dca_machine");
    logged_in(home.path(), "http://127.0.0.1:8099/", "dcs_alice");
    let mut place = Place {
        data_dir: Some(dir.path().to_owned()),
        sessions: Some(home.path().to_owned()),
        ..place()
    };
    assert_eq!(resolved(&place).1, "dcs_alice");
    place.token = Some(Token("dca_stated".to_owned()));
    assert_eq!(resolved(&place).1, "dca_stated");
    // A session is of the master that opened it, and of no other.
    place.token = None;
    place.url = Some("http://127.0.0.1:8100".to_owned());
    assert_eq!(resolved(&place).1, "dca_machine");
}

#[test]
fn the_newest_login_says_which_master_when_nothing_else_does() {
    let home = tempfile::tempdir().expect("a directory");
    let other = tempfile::tempdir().expect("a directory");
    master_in(other.path(), "http://127.0.0.1:8099", "dca_machine");
    logged_in(home.path(), "http://127.0.0.1:1/", "dcs_one");
    logged_in(home.path(), "http://127.0.0.1:2/", "dcs_two");
    let place = Place {
        sessions: Some(home.path().to_owned()),
        fallbacks: vec![other.path().to_owned()],
        ..place()
    };
    let found = ("http://127.0.0.1:2/".to_owned(), "dcs_two".to_owned());
    assert_eq!(resolved(&place), found);
    assert_eq!(place.locate().expect("a master").as_str(), found.0);
    let stranger = Place {
        fallbacks: vec![other.path().to_owned()],
        ..Place::default()
    };
    assert_eq!(
        stranger.locate().expect("a master").as_str(),
        "http://127.0.0.1:8099/"
    );
}

/// A place whose user had logged in at a URL until a time.
fn login_of_carol(home: &Path, url: &str, until: &str) -> Place {
    let sessions = Sessions::new(Some(home)).expect("a place");
    let kept = Kept {
        name: "carol".to_owned(),
        token: "dcs_carol".to_owned(),
        expires_at: until.to_owned(),
    };
    sessions.keep(url, kept).expect("kept");
    Place {
        sessions: Some(home.to_owned()),
        ..place()
    }
}

const PAST: &str = "2020-01-01T00:00:00Z";
const LATER: &str = "2999-01-01T00:00:00Z";

#[test]
fn where_a_token_was_found_is_known() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = tempfile::tempdir().expect("a directory");
    master_in(dir.path(), "http://127.0.0.1:8099", "dna_one");
    let mut place = login_of_carol(home.path(), "http://127.0.0.1:8099/", LATER);
    let origin = |place: &Place| place.resolve().expect("a master is named").origin;
    assert_eq!(origin(&place), Origin::Session("carol".to_owned()));
    place.token = Some(Token("dna_two".to_owned()));
    assert_eq!(origin(&place), Origin::Variable);
    let file = dir.path().join(ADMIN_TOKEN);
    place.token_file = Some(file.clone());
    assert_eq!(origin(&place), Origin::File(file.clone()));
    let beside = Place {
        data_dir: Some(dir.path().to_owned()),
        ..Place::default()
    };
    assert_eq!(origin(&beside), Origin::File(file));
}

#[test]
fn a_session_that_has_ended_is_told_and_no_other_master_is_asked_in_its_place() {
    let home = tempfile::tempdir().expect("a directory");
    let other = tempfile::tempdir().expect("a directory");
    master_in(other.path(), "http://127.0.0.1:8099", "dna_other");
    let url = "http://127.0.0.1:8098/";
    let mut place = login_of_carol(home.path(), url, PAST);
    place.fallbacks = vec![other.path().to_owned()];
    let refusal = place.resolve().expect_err("it has ended").lines();
    assert_eq!(
        refusal,
        [
            "error: the session of carol at http://127.0.0.1:8098/ ended 2020-01-01 00:00:00",
            "  next: log in again: decnet login carol --url http://127.0.0.1:8098/",
        ]
    );
    // Whoever logs in again need not say where.
    assert_eq!(place.locate().expect("the newest").as_str(), url);
    place.token = Some(Token("dna_two".to_owned()));
    assert_eq!(resolved(&place), (url.to_owned(), "dna_two".to_owned()));
}

#[test]
fn where_the_machine_has_a_token_it_stands_in_for_a_session_that_has_ended() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = tempfile::tempdir().expect("a directory");
    master_in(dir.path(), "http://127.0.0.1:8099", "dna_one");
    let mut place = login_of_carol(home.path(), "http://127.0.0.1:8099/", PAST);
    place.data_dir = Some(dir.path().to_owned());
    let endpoint = place.resolve().expect("a token is there");
    assert_eq!(endpoint.token.0, "dna_one");
    assert_eq!(endpoint.lapsed.as_deref(), Some("carol"));
}

#[test]
fn a_file_that_holds_no_token_says_how_to_make_one() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let place = Place {
        url: Some("http://127.0.0.1:1".to_owned()),
        token_file: Some(file.path().to_owned()),
        ..place()
    };
    let lines = place.resolve().expect_err("it is empty").lines();
    assert!(lines[0].ends_with("holds no token"), "{lines:?}");
    assert!(lines[1].contains("decnet token create"), "{lines:?}");
}
