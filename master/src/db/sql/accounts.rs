//! Users, sessions, API tokens and idempotency keys: which statement answers what.

use async_trait::async_trait;
use time::OffsetDateTime;

use super::retry::again;
use super::{SqlStore, access, keys, users};
use crate::db::accounts::{
    Accounts, ApiTokenId, ApiTokenRow, Keyed, KeyedRequest, PasswordHash, SessionRow, UserChange,
    UserError, UserId, UserRow,
};
use crate::db::{Actor, StoreError};

#[async_trait]
impl Accounts for SqlStore {
    async fn insert_user(&self, user: &UserRow, actor: Actor) -> Result<(), UserError> {
        again(|| users::insert(self, user, &actor)).await
    }

    async fn insert_first_user(&self, user: &UserRow) -> Result<bool, UserError> {
        again(|| users::insert_first(self, user)).await
    }

    async fn users(&self) -> Result<Vec<UserRow>, StoreError> {
        users::list(self).await
    }

    async fn user(&self, id: UserId) -> Result<Option<UserRow>, StoreError> {
        users::find(self, id).await
    }

    async fn user_named(&self, name: &str) -> Result<Option<UserRow>, StoreError> {
        users::named(self, name).await
    }

    async fn change_user(&self, change: UserChange) -> Result<UserRow, UserError> {
        again(|| users::change(self, &change)).await
    }

    async fn delete_user(
        &self,
        user: UserId,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<(), UserError> {
        again(|| users::delete(self, user, &actor, now)).await
    }

    async fn insert_session(
        &self,
        session: &SessionRow,
        shown: &PasswordHash,
    ) -> Result<bool, StoreError> {
        again(|| access::insert_session(self, session, shown)).await
    }

    async fn session(
        &self,
        hash: &[u8; 32],
        now: OffsetDateTime,
    ) -> Result<Option<(SessionRow, UserRow)>, StoreError> {
        access::session(self, hash, now).await
    }

    async fn sessions(
        &self,
        user: UserId,
        now: OffsetDateTime,
    ) -> Result<Vec<SessionRow>, StoreError> {
        access::sessions(self, user, now).await
    }

    async fn end_session(&self, hash: &[u8; 32]) -> Result<bool, StoreError> {
        again(|| access::end_session(self, hash)).await
    }

    async fn end_sessions(&self, user: UserId) -> Result<u64, StoreError> {
        again(|| access::end_sessions(self, user)).await
    }

    async fn insert_api_token(&self, token: &ApiTokenRow, actor: Actor) -> Result<(), StoreError> {
        again(|| access::insert_token(self, token, &actor)).await
    }

    async fn api_token(
        &self,
        hash: &[u8; 32],
        now: OffsetDateTime,
    ) -> Result<Option<ApiTokenRow>, StoreError> {
        access::token(self, hash, now).await
    }

    async fn api_tokens(&self) -> Result<Vec<ApiTokenRow>, StoreError> {
        access::tokens(self).await
    }

    async fn revoke_api_token(
        &self,
        id: ApiTokenId,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        again(|| access::revoke_token(self, id, &actor, now)).await
    }

    async fn take_keyed(&self, request: &KeyedRequest) -> Result<Keyed, StoreError> {
        again(|| keys::take(self, request)).await
    }

    async fn keep_answer(
        &self,
        request: &KeyedRequest,
        status: u16,
        body: &[u8],
    ) -> Result<(), StoreError> {
        again(|| keys::keep(self, request, status, body)).await
    }

    async fn release_key(&self, request: &KeyedRequest) -> Result<(), StoreError> {
        again(|| keys::release(self, request)).await
    }
}
