import AMQP
import Base

// The words of AMQP that the client's interface speaks, so that `import Client` is enough.

/// The name of a queue, an exchange or a consumer, or a routing key: at most 255 bytes. Text
/// literals are names; other text becomes one by `Name(text)`, which cuts what is too long.
public typealias Name = Base.Name

/// Named values: the arguments of a declaration, the headers of a message.
public typealias FieldTable = AMQP.FieldTable

/// A value in a field table.
public typealias FieldValue = AMQP.FieldValue

/// The properties of a message.
public typealias BasicProperties = AMQP.BasicProperties
