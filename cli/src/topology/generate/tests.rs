use clap::Parser;

use super::*;
use crate::document::{judge, parse_text};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: GenerateArgs,
}

fn args(words: &str) -> GenerateArgs {
    let words = std::iter::once("generate").chain(words.split_whitespace());
    Line::try_parse_from(words).expect("sense").args
}

fn text(words: &str) -> String {
    let args = args(words);
    let seed = args.seed.expect("given");
    let file = generated(&args, seed).expect("sound parameters");
    format!(
        "# {}\n{}",
        args.command(seed),
        yaml(&file).expect("writable")
    )
}

fn refused(words: &str) -> (Exit, String) {
    let failure = generated(&args(words), 1).expect_err("out of bounds");
    (failure.exit(), failure.lines().join("\n"))
}

#[test]
fn a_seed_gives_this_document() {
    insta::assert_snapshot!(
        "small",
        text("--name small --depth 1 --branching 1 --seed 42 --services ssh,http")
    );
    insta::assert_snapshot!(
        "archetypes",
        text(
            "--depth 2 --branching 2 --deckies-per-lan 2 --seed 7 --subnet-base 10.40.0.0/16 \
             --forward-probability 0.5 --cross-probability 0.25 --publish-offset 20000 \
             --archetype linux-server=2,web-server --archetype deaddeck"
        )
    );
}

#[test]
fn the_comment_at_the_head_is_the_command_that_gives_it_again() {
    for words in [
        "--seed 9",
        "--seed 9 --depth 2 --services ssh,http --with-seeds --publish-offset 1000",
        "--seed 18446744073709551615 --cross-probability 0.333333 --archetype web-server=5",
    ] {
        let first = text(words);
        let command = first.lines().next().expect("a head").to_owned();
        let again = command
            .strip_prefix("# decnet topology generate ")
            .expect("the command");
        assert_eq!(text(again), first);
    }
}

#[test]
fn what_is_generated_is_taken_and_has_no_error() {
    for words in [
        "--seed 1",
        "--seed 2 --services ssh --depth 3 --branching 3",
        "--seed 3 --archetype linux-server --cross-probability 1",
        "--seed 4 --with-seeds",
    ] {
        let judged = judge(parse_text(&text(words), "generated").expect("readable"));
        let errors: Vec<_> = judged
            .findings
            .iter()
            .filter(|each| each.is_error())
            .collect();
        assert!(errors.is_empty(), "{words}: {errors:?}");
        assert!(judged.hash.is_some());
    }
}

#[test]
fn seeds_of_deckies_are_there_only_on_demand() {
    let bare = generated(&args("--seed 5"), 5).expect("sound");
    assert!(bare.deckies.iter().all(|decky| decky.seed.is_none()));
    let mut whole = generated(&args("--seed 5 --with-seeds"), 5).expect("sound");
    assert!(whole.deckies.iter().all(|decky| decky.seed.is_some()));
    for decky in &mut whole.deckies {
        decky.seed = None;
    }
    assert_eq!(whole, bare);
}

#[test]
fn a_parameter_out_of_bounds_is_named_with_its_bound() {
    for (words, wanted) in [
        ("--depth 17", "--depth: 17 is not between 1 and 16"),
        ("--branching 0", "--branching: 0 is not between 1 and 8"),
        (
            "--deckies-per-lan 33",
            "--deckies-per-lan: 33 is not between 0 and 32",
        ),
        (
            "--deckies-per-lan 3-2",
            "--deckies-per-lan: deckies_min must not be greater than deckies_max",
        ),
        (
            "--publish-offset 40000",
            "--publish-offset: 40000 is not between 0 and 30000",
        ),
        (
            "--services http,conpot",
            "--services: two of the services listen on port 80",
        ),
        ("--name a_b", "--name: "),
        (
            "--archetype web-server=0",
            "--archetype: the weights of the archetypes must add up to 1 to 1000000",
        ),
    ] {
        let (exit, said) = refused(words);
        assert!(said.contains(wanted), "{words}: {said}");
        assert_eq!(exit, Exit::Usage, "{words}");
    }
}

#[test]
fn parameters_that_give_too_much_say_the_limit() {
    let (exit, said) = refused("--depth 16 --branching 8");
    assert!(said.contains("the limit of 256"), "{said}");
    assert_eq!(exit, Exit::Failed);
    let (_, said) = refused("--depth 3 --branching 3 --subnet-base 10.0.0.0/23");
    assert!(
        said.contains("--subnet-base: no free /24 is left in 10.0.0.0/23"),
        "{said}"
    );
}

#[test]
fn words_that_mean_nothing_are_usage_errors() {
    for (words, wanted) in [
        ("--forward-probability 1.5", "1.5 is not between 0 and 1"),
        ("--cross-probability NaN", "NaN is not between 0 and 1"),
        ("--deckies-per-lan some", "such as 1-3"),
        ("--services sssh", "there are random, conpot"),
        ("--archetype toaster", "windows-workstation"),
        ("--archetype web-server=many", "a weight is a whole number"),
        (
            "--archetype web-server --services ssh",
            "cannot be used with",
        ),
        ("--subnet-base 10.0.0.0/8", "from /12 to /24"),
        ("--seed=-1", "--seed"),
    ] {
        let line = std::iter::once("generate").chain(words.split_whitespace());
        let error = Line::try_parse_from(line).expect_err("no sense");
        assert_eq!(error.exit_code(), 2, "{words}");
        assert!(error.to_string().contains(wanted), "{words}: {error}");
    }
}
