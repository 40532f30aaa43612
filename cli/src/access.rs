//! Who may ask: `decnet login`, `logout`, `user` and `token`.

mod prompt;
pub(crate) mod sessions;
mod token;
mod user;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use domain::role::Role;
use proto::client::Client;
use proto::rest::{ChangePassword, LoginRequest, RoleShape, SessionOpened};

use self::prompt::Passwords;
use self::sessions::{Kept, Sessions};
pub(crate) use self::token::{TokenCommand, run as token};
pub(crate) use self::user::{UserCommand, run as user};
use crate::clock;
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// `decnet login`.
#[derive(Debug, Args)]
pub(crate) struct LoginCommand {
    /// The user's name.
    #[arg(default_value = "admin", value_parser = name)]
    name: String,
    /// Read the password from the first line of standard input; and from the second one the new
    /// password, if it must be changed.
    #[arg(long)]
    password_stdin: bool,
}

/// The name of a user or an API token, as it stands in a URL.
fn name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 64 letters, digits, dots, hyphens and underscores".to_owned())
    }
}

/// Takes the word for a role, and offers them.
fn roles() -> impl TypedValueParser<Value = RoleShape> {
    PossibleValuesParser::new(Role::ALL.map(Role::as_str)).try_map(|text| role(&text))
}

fn role(text: &str) -> Result<RoleShape, String> {
    text.parse::<Role>()
        .map(RoleShape::from)
        .map_err(|error| error.to_string())
}

fn role_word(role: RoleShape) -> &'static str {
    Role::from(role).as_str()
}

/// Opens a session and keeps it for the commands to come.
pub(crate) async fn login(command: LoginCommand, context: &Context) -> Result<Exit, Failure> {
    let url = context.place.locate()?;
    let mut passwords = Passwords::of(command.password_stdin)?;
    let request = LoginRequest {
        password: passwords.next(&format!("Password of {}: ", command.name))?,
        name: command.name,
    };
    let stranger = Client::anonymous(url.clone())?;
    let mut opened = stranger.login(&request).await.map_err(refused)?;
    if opened.must_change_password {
        context.output.note("the password must be changed");
        let client = Client::new(url.clone(), &opened.token)?;
        let new = passwords.new_one().map_err(|failure| {
            failure.next("with --password-stdin, give the new password in a second line")
        })?;
        let change = ChangePassword {
            current: request.password,
            new,
        };
        opened = client.change_password(&change).await.map_err(refused)?;
    }
    keep(context, url.as_str(), &opened)?;
    context.output.note(&format!(
        "logged in at {url} as {} ({}) until {}",
        opened.name,
        role_word(opened.role),
        clock::date_and_time(&opened.expires_at)
    ));
    Ok(Exit::Done)
}

/// Ends the session of the master that is meant.
pub(crate) async fn logout(context: &Context) -> Result<Exit, Failure> {
    let sessions = Sessions::new(context.place.sessions.as_deref())?;
    let url = context.place.locate()?;
    let Some(kept) = sessions.of(url.as_str())? else {
        if let Some(lapsed) = sessions.lapsed(url.as_str())? {
            sessions.forget(url.as_str())?;
            context.output.note(&format!(
                "the session of {} at {url} had ended {}; it is forgotten",
                lapsed.name,
                clock::date_and_time(&lapsed.expires_at)
            ));
            return Ok(Exit::Done);
        }
        context
            .output
            .note(&format!("nobody is logged in at {url}"));
        return Ok(Exit::Done);
    };
    // Forgotten first: what the master says of it changes nothing here.
    sessions.forget(url.as_str())?;
    let client = Client::new(url.clone(), &kept.token)?;
    match client.logout().await {
        Ok(()) => {}
        Err(error) if error.status() == Some(401) => {}
        Err(error) => return Err(error.into()),
    }
    context.output.note(&format!("logged out at {url}"));
    Ok(Exit::Done)
}

fn keep(context: &Context, url: &str, opened: &SessionOpened) -> Result<(), Failure> {
    let sessions = Sessions::new(context.place.sessions.as_deref())?;
    sessions.keep(
        url,
        Kept {
            name: opened.name.clone(),
            token: opened.token.clone(),
            expires_at: opened.expires_at.clone(),
        },
    )
}

/// The master speaks of tokens; whoever types a password has none.
fn refused(error: proto::client::ClientError) -> Failure {
    if error.status() != Some(401) {
        return error.into();
    }
    Failure::say(error)
        .next("look at the name; an admin can give a new password: decnet user passwd NAME")
}

#[cfg(test)]
mod tests;
