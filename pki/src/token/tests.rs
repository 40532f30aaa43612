use proptest::prelude::*;

use super::*;

fn token() -> JoinToken {
    JoinToken::mint(
        TokenId::new(Uuid::from_u128(7)),
        *b"sixteen random b",
        SpkiPin::from_bytes([9; 32]),
    )
}

#[test]
fn debug_forms_do_not_show_the_secret() {
    let token = token();
    assert!(format!("{token:?}").contains("Secret(…)"));
    assert_eq!(format!("{:?}", token.encode()), "EncodedToken(…)");
}

#[test]
fn each_way_to_be_wrong_has_its_own_answer() {
    let good = token().encode().expose().to_owned();
    let parse = |text: &str| JoinToken::parse(text).expect_err("not a token");

    assert_eq!(parse(""), InvalidToken::Prefix);
    assert_eq!(parse("hello"), InvalidToken::Prefix);
    assert_eq!(parse("dcnx_AAAA"), InvalidToken::Prefix);
    assert_eq!(
        parse(&good.replacen("dcn1", "dcn2", 1)),
        InvalidToken::Version
    );
    assert_eq!(
        parse(&good[..good.len() - 3]),
        InvalidToken::Length { found: 93 }
    );
    assert_eq!(
        parse(&format!("{good}A")),
        InvalidToken::Length { found: 97 }
    );
    assert_eq!(
        parse(&good.replacen('_', "_!", 1)),
        InvalidToken::Characters
    );
    assert_eq!(
        parse(&good.replacen("dcn1_A", "dcn1_B", 1)),
        InvalidToken::Checksum
    );
}

#[test]
fn white_space_around_a_token_is_not_part_of_it() {
    let padded = format!("  {}\r\n", token().encode().expose());
    let read = JoinToken::parse(&padded).expect("only white space was added");
    assert_eq!(read.secret(), token().secret());
}

#[test]
fn a_secret_matches_its_own_hash_only() {
    let secret = Secret::from_slice(&[1; 16]).expect("16 bytes");
    assert!(secret.matches(&secret.hash()));
    assert!(!secret.matches(&token().secret_hash()));
    assert_eq!(Secret::from_slice(&[1; 15]), None);
}

proptest! {
    #[test]
    fn a_token_reads_back_from_its_text(id: u128, secret: [u8; 16], pin: [u8; 32]) {
        let id = TokenId::new(Uuid::from_u128(id));
        let token = JoinToken::mint(id, secret, SpkiPin::from_bytes(pin));
        let read = JoinToken::parse(token.encode().expose()).expect("made by us");
        prop_assert_eq!(read.id(), id);
        prop_assert_eq!(read.secret().expose(), &secret);
        prop_assert_eq!(read.pin(), SpkiPin::from_bytes(pin));
        prop_assert_eq!(read.secret_hash(), token.secret_hash());
    }

    #[test]
    fn parsing_never_panics(text in any::<String>()) {
        drop(JoinToken::parse(&text));
        drop(JoinToken::parse(&format!("{PREFIX}{text}")));
    }

    #[test]
    fn a_single_mistyped_character_is_refused(secret: [u8; 16], at in 0usize..96, to in "[ -~é]") {
        let token = JoinToken::mint(TokenId::new(Uuid::nil()), secret, SpkiPin::from_bytes([3; 32]));
        let good = token.encode();
        let mut characters: Vec<char> = good.expose().chars().collect();
        let to: Vec<char> = to.chars().collect();
        prop_assume!(characters[at] != to[0]);
        characters[at] = to[0];
        let typo: String = characters.into_iter().collect();
        prop_assert!(JoinToken::parse(&typo).is_err());
    }
}
