//! Who may ask: logins, users and API tokens.

use reqwest::{Method, Url};
use serde_json::json;

use super::transport::{Path, parse, route};
use super::{Client, ClientError, InvalidEndpoint};
use crate::rest::{
    ApiTokenCreated, ApiTokenShape, ChangePassword, ChangeUser, CreateApiToken, CreateUser,
    LoginRequest, Me, Page, SessionOpened, UserChanged, UserShape,
};

impl Client {
    /// A client of the master at `base` that nobody knows: for what it answers everybody.
    pub fn anonymous(base: Url) -> Result<Self, InvalidEndpoint> {
        Self::new(base, "nobody")
    }

    /// `POST /login`.
    pub async fn login(&self, request: &LoginRequest) -> Result<SessionOpened, ClientError> {
        self.post(&["login"], request).await
    }

    /// `POST /logout`.
    pub async fn logout(&self) -> Result<(), ClientError> {
        let path: Path<'_> = &["logout"];
        let request = self.request(Method::POST, path).json(&json!({}));
        self.answer(request, &route(&Method::POST, path))
            .await
            .map(drop)
    }

    /// `GET /me`.
    pub async fn me(&self) -> Result<Me, ClientError> {
        self.get(&["me"]).await
    }

    /// `POST /me/password`.
    pub async fn change_password(
        &self,
        request: &ChangePassword,
    ) -> Result<SessionOpened, ClientError> {
        self.post(&["me", "password"], request).await
    }

    /// `GET /users`, every page.
    pub async fn users(&self) -> Result<Vec<UserShape>, ClientError> {
        self.list(&["users"]).await
    }

    /// `POST /users`.
    pub async fn create_user(&self, request: &CreateUser) -> Result<UserChanged, ClientError> {
        self.post(&["users"], request).await
    }

    /// `PATCH /users/{user}`.
    pub async fn change_user(
        &self,
        user: &str,
        request: &ChangeUser,
    ) -> Result<UserChanged, ClientError> {
        let path: Path<'_> = &["users", user];
        let route = route(&Method::PATCH, path);
        let request = self.request(Method::PATCH, path).json(request);
        parse(&self.answer(request, &route).await?, &route)
    }

    /// `DELETE /users/{user}`.
    pub async fn remove_user(&self, user: &str) -> Result<(), ClientError> {
        self.remove(&["users", user]).await
    }

    /// `GET /api-tokens`, every page; with `all`, those of no use among them.
    pub async fn api_tokens(&self, all: bool) -> Result<Vec<ApiTokenShape>, ClientError> {
        let mut tokens = Vec::new();
        let mut query = vec![("all", all.to_string())];
        loop {
            let page: Page<ApiTokenShape> = self.page(&["api-tokens"], &query).await?;
            tokens.extend(page.items);
            let Some(next) = page.next else {
                return Ok(tokens);
            };
            query.truncate(1);
            query.push(("cursor", next));
        }
    }

    /// `POST /api-tokens`.
    pub async fn mint_api_token(
        &self,
        request: &CreateApiToken,
    ) -> Result<ApiTokenCreated, ClientError> {
        self.post(&["api-tokens"], request).await
    }

    /// `DELETE /api-tokens/{token}`.
    pub async fn revoke_api_token(&self, token: &str) -> Result<(), ClientError> {
        self.remove(&["api-tokens", token]).await
    }
}
