/// Which Martlet this is: told to peers and to people.
public enum Version {
  public static let text = "0.1.0"
}
