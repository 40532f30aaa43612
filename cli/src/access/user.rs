//! `decnet user`: who may log in.

use clap::{Args, Subcommand};
use proto::client::Client;
use proto::rest::{ChangePassword, ChangeUser, CreateUser, RoleShape, UserChanged, UserShape};

use super::prompt::Passwords;
use super::{keep, name, role_word, roles};
use crate::clock;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::host::removed;
use crate::table::{Field, Look, table};

/// `decnet user VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user, with a one-time password.
    Add(AddArgs),
    /// List the users.
    Ls,
    /// Change what a user may do.
    Role(RoleArgs),
    /// Change one's own password, or give a user a one-time password.
    Passwd(PasswdArgs),
    /// Remove a user and end its sessions. API tokens that it made stay.
    Rm(UserArg),
}

#[derive(Debug, Args)]
pub(crate) struct UserArg {
    /// The user, by name or id.
    #[arg(value_name = "USER", value_parser = name)]
    #[arg(add = crate::completion::users())]
    user: String,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Its name.
    #[arg(value_parser = name)]
    name: String,
    /// What it may do.
    #[arg(long, default_value = "viewer", value_parser = roles())]
    role: RoleShape,
    /// Read its first password from standard input instead of having one made. It must be changed
    /// at the first login all the same.
    #[arg(long)]
    password_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RoleArgs {
    #[command(flatten)]
    user: UserArg,
    /// What it may do.
    #[arg(value_parser = roles())]
    role: RoleShape,
}

#[derive(Debug, Args)]
pub(crate) struct PasswdArgs {
    /// The user, by name or id; oneself when left out.
    #[arg(value_name = "USER", value_parser = name)]
    #[arg(add = crate::completion::users())]
    user: Option<String>,
    /// Read passwords from standard input: one's own and the new one in two lines, or the one of a
    /// user instead of having one made.
    #[arg(long)]
    password_stdin: bool,
}

pub(crate) async fn run(command: UserCommand, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        UserCommand::Add(args) => {
            let password = chosen(args.password_stdin)?;
            let request = CreateUser {
                name: args.name,
                role: args.role,
                password,
            };
            changed(context, &client.create_user(&request).await?, "is made")?;
        }
        UserCommand::Ls => {
            let look = context.output.look;
            context
                .output
                .list(&client.users().await?, |users| users_table(look, users))?;
        }
        UserCommand::Role(args) => {
            let request = ChangeUser {
                role: Some(args.role),
                ..ChangeUser::default()
            };
            let answer = client.change_user(&args.user.user, &request).await?;
            changed(context, &answer, &format!("is {}", role_word(args.role)))?;
        }
        UserCommand::Passwd(PasswdArgs {
            user: None,
            password_stdin,
        }) => own_password(&client, context, password_stdin).await?,
        UserCommand::Passwd(PasswdArgs {
            user: Some(user),
            password_stdin,
        }) => {
            let password = chosen(password_stdin)?;
            let request = ChangeUser {
                reset_password: password.is_none(),
                password,
                role: None,
            };
            let answer = client.change_user(&user, &request).await?;
            changed(context, &answer, "must choose another password")?;
        }
        UserCommand::Rm(args) => {
            client.remove_user(&args.user).await?;
            removed(context, "user", &args.user)?;
        }
    }
    Ok(Exit::Done)
}

fn chosen(stdin: bool) -> Result<Option<String>, Failure> {
    stdin.then(|| Passwords::of(true)?.next("")).transpose()
}

async fn own_password(client: &Client, context: &Context, stdin: bool) -> Result<(), Failure> {
    let me = client.me().await?;
    if me.kind != "user" {
        return Err(
            Failure::say(format!("{} is a token and has no password", me.name))
                .next("log in first: decnet login; or name the user: decnet user passwd NAME"),
        );
    }
    let mut passwords = Passwords::of(stdin)?;
    let request = ChangePassword {
        current: passwords.next(&format!("Password of {}: ", me.name))?,
        new: passwords.new_one()?,
    };
    let opened = client.change_password(&request).await?;
    keep(context, client.base().as_str(), &opened)?;
    context
        .output
        .note("the password is changed; every other session of yours has ended");
    Ok(())
}

/// Says what became of a user: the answer as it is to programs, lines to people.
fn changed(context: &Context, answer: &UserChanged, now: &str) -> Result<(), Failure> {
    if !context.output.is_table() {
        return context.output.show(answer, |_| String::new());
    }
    context
        .output
        .note(&format!("user {} {now}", answer.user.name));
    match &answer.one_time_password {
        // Alone where only results are wanted: a program reads it.
        Some(password) if context.output.quiet => context.output.say(password),
        Some(password) => context
            .output
            .say(&format!("one-time password: {password}")),
        None => Ok(()),
    }
}

fn users_table(look: Look, users: &[UserShape]) -> String {
    table(
        look,
        &["name", "role", "password", "made"],
        users.iter().map(|user| {
            let password = if user.must_change_password {
                "must be changed".to_owned()
            } else {
                clock::date_and_time(&user.password_at)
            };
            [
                Field::text(&user.name),
                Field::text(role_word(user.role)),
                Field::text(password),
                Field::text(clock::date_and_time(&user.created_at)),
            ]
        }),
    )
}
