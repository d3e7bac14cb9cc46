"""What Pocketbook takes and gives as JSON."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt

Currency = Literal["USD", "EUR", "GBP", "CHF", "JPY", "KWD"]
Status = Literal["pending", "completed", "failed", "cancelled"]
Category = Literal["groceries", "rent", "travel", "salary", "utilities", "leisure"]
Format = Literal["csv", "json"]

MAX_ID = 2**31 - 1


def _printable(text: str) -> str:
    # NUL and lone surrogates are JSON, but no text that a database keeps.
    if not text.isprintable():
        raise ValueError("must be printable text")
    return text


PlainText = Annotated[str, Field(max_length=80), AfterValidator(_printable)]
Amount = Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,3})?$")]
UserId = Annotated[StrictInt, Field(ge=1, le=MAX_ID)]


class NewTransaction(BaseModel):
    """The amount is text, so that no JSON reader on the way makes a float of it."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId
    amount: Amount
    currency: Currency
    merchant: Annotated[PlainText, Field(min_length=1)]
    category: Category
    status: Status = "completed"


class NewRefund(BaseModel):
    model_config = ConfigDict(extra="forbid")

    amount: Amount


class NewFee(BaseModel):
    """What somebody else keeps of the revenue, as a statement of theirs says."""

    model_config = ConfigDict(extra="forbid")

    statement: Annotated[PlainText, Field(min_length=1)]
    amount: Amount
    currency: Currency


class Decision(BaseModel):
    model_config = ConfigDict(extra="forbid")

    granted: StrictBool


class ReturnOut(BaseModel):
    """What went back of a transaction."""

    id: str
    transaction_id: str
    amount: Decimal
    currency: str


class TransactionOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    user_id: int
    amount: Decimal
    currency: str
    status: str
    merchant: str
    category: str
    created_at: datetime


class TransactionPage(BaseModel):
    items: list[TransactionOut]
    next_offset: int | None


class UserOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    country: str
    plan: str
    last_seen: datetime


class UserPage(BaseModel):
    items: list[UserOut]
    next_offset: int | None


class UserDetail(UserOut):
    balances: dict[str, Decimal]


class ExportRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Format
    currency: Currency | None = None


class DashboardOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    layout: str
    days: int
    active_users: int
    revenue: dict[str, Decimal]
    transactions: int
    categories: dict[str, int]
